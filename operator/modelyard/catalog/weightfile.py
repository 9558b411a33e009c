"""Counting what a safetensors file holds, from its header alone.

Format: eight bytes with the header's length (little-endian), then the header as JSON, tensor by tensor
(https://huggingface.co/docs/safetensors/index#format).
"""

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

LENGTH_BYTES: Final = 8
"""Bytes before the header, which hold its length."""

LARGEST_HEADER: Final = 25_000_000
"""Bytes. huggingface_hub's own limit (`SAFETENSORS_MAX_HEADER_LENGTH`)."""

PLAIN_TYPES: Final = frozenset({"F64", "F32", "F16", "BF16"})
"""Types of weights that are not quantised."""

_WEIGHT_TYPES: Final = PLAIN_TYPES | {"F8_E4M3", "F8_E5M2", "I8", "U8", "I32", "F4"}
"""Types that weights are stored in; the others (I64, BOOL, ...) are of buffers."""


class DamagedHeaderError(Exception):
    """The bytes are no header of a safetensors file."""


def read_header_length(start: bytes) -> int:
    """Return how many bytes of header follow the first eight. Raises DamagedHeaderError."""
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    if len(start) < LENGTH_BYTES or not 0 < length <= LARGEST_HEADER:
        raise DamagedHeaderError("the length of its header is not believable")
    return length


def count_header(header: bytes) -> Counter[str]:
    """Return how many numbers of each weight type the tensors of a header have. Raises DamagedHeaderError."""
    try:
        tensors = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise DamagedHeaderError("its header is no JSON") from error
    if not isinstance(tensors, Mapping):
        raise DamagedHeaderError("its header is no JSON object")
    counts: Counter[str] = Counter()
    for name, tensor in tensors.items():
        if name != "__metadata__":
            counts[_read_type(tensor)] += _count_tensor(tensor)
    return select_weights(counts)


def select_weights(counts: Mapping[str, Any]) -> Counter[str]:
    """Return the counts of the types that weights are stored in, without entries that make no sense."""
    return Counter(
        {
            kind: count
            for kind, count in counts.items()
            if kind in _WEIGHT_TYPES and type(count) is int and count > 0
        }
    )


def _read_type(tensor: object) -> str:
    kind = tensor.get("dtype") if isinstance(tensor, Mapping) else None
    if not isinstance(kind, str):
        raise DamagedHeaderError("a tensor of its header has no dtype")
    return kind


def _count_tensor(tensor: Mapping[str, Any]) -> int:
    shape = tensor.get("shape")
    if (
        not isinstance(shape, list)
        or len(shape) > 8
        or not all(type(size) is int and 0 <= size < 2**48 for size in shape)
    ):
        raise DamagedHeaderError("a tensor of its header has no shape")
    return math.prod(shape)
