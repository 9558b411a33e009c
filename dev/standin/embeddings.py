"""/v1/embeddings: vectors that depend on nothing but the input, as vLLM's pooling models answer them."""

import base64
import hashlib
import json
import math
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass

from dev.standin.errors import Json, bad_request, read_integer
from dev.standin.protocol import is_token_list, parse_json, parse_model
from dev.standin.text import count_tokens

DEFAULT_DIMENSIONS = 384
"""Length of a vector unless the request says otherwise: that of `sentence-transformers/all-MiniLM-L6-v2`
(its model card)."""

LARGEST_DIMENSIONS = 16_384
"""Longest vector; keeps a mistake from filling the memory."""

MOST_INPUTS = 2048
"""Inputs of one request (OpenAI API reference)."""


@dataclass(frozen=True, slots=True)
class EmbeddingsRequest:
    """A checked request of /v1/embeddings."""

    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    """Texts or lists of token numbers."""
    dimensions: int
    base64: bool
    """Vectors as little-endian 32-bit floats in base64, what OpenAI's Python client asks for by default."""

    @property
    def prompt_tokens(self) -> tuple[int, ...]:
        """Return the tokens of each input."""
        return tuple(
            count_tokens(len(entry)) if isinstance(entry, str) else len(entry) for entry in self.inputs
        )

    def answer(self, request_id: str) -> Json:
        """Return the answer."""
        vectors = [_vector(entry, self.dimensions) for entry in self.inputs]
        tokens = sum(self.prompt_tokens)
        return {
            "id": f"embd-{request_id}",
            "object": "list",
            "created": int(time.time()),
            "model": self.model,
            "data": [
                {"index": index, "object": "embedding", "embedding": self._encode(vector)}
                for index, vector in enumerate(vectors)
            ],
            "usage": {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens},
        }

    def _encode(self, vector: list[float]) -> list[float] | str:
        if not self.base64:
            return vector
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def parse_embeddings(raw: bytes, *, default_model: str, max_model_len: int) -> EmbeddingsRequest:
    """Check a request body.

    Raises RequestError for anything that vLLM answers with 400. The model's existence is not checked.
    """
    body = parse_json(raw)
    dimensions = read_integer(body, "dimensions", DEFAULT_DIMENSIONS)
    if dimensions > LARGEST_DIMENSIONS:
        raise bad_request(f"dimensions must be at most {LARGEST_DIMENSIONS}", "dimensions")
    encoding = body.get("encoding_format", "float")
    if encoding not in {"float", "base64"}:
        raise bad_request("encoding_format must be float or base64", "encoding_format")
    request = EmbeddingsRequest(
        parse_model(body, default_model), _inputs(body), dimensions, encoding == "base64"
    )
    if max(request.prompt_tokens) > max_model_len:
        raise bad_request(f"This model's maximum context length is {max_model_len} tokens.", "input_tokens")
    return request


def _inputs(body: Mapping[str, object]) -> tuple[str | tuple[int, ...], ...]:
    given = body.get("input")
    entries = given if isinstance(given, list) and not is_token_list(given) else [given]
    if not 1 <= len(entries) <= MOST_INPUTS:
        raise bad_request(f"input must have 1 to {MOST_INPUTS} entries, has {len(entries)}", "input")
    inputs: list[str | tuple[int, ...]] = []
    for entry in entries:
        if isinstance(entry, str) and entry:
            inputs.append(entry)
        elif is_token_list(entry):
            inputs.append(tuple(entry))
        else:
            raise bad_request("input must be non-empty strings or lists of token ids", "input")
    return tuple(inputs)


def _vector(entry: str | tuple[int, ...], dimensions: int) -> list[float]:
    """Return a vector of length 1, drawn from a hash of the input."""
    drawn = hashlib.shake_256(json.dumps(entry).encode()).digest(4 * dimensions)
    values = [value + 0.5 for value in struct.unpack(f"<{dimensions}i", drawn)]
    length = math.hypot(*values)
    return [value / length for value in values]
