"""Reading a model's profile from the hub or from a folder: `config.json` and what the weight files' headers say.

Nothing is downloaded but that, and nothing is written. These functions block: call them in a thread.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote

import httpx2
from huggingface_hub import constants, get_session, hf_hub_url
from huggingface_hub.errors import OfflineModeIsEnabled
from pydantic import TypeAdapter, ValidationError

from modelyard.api.llmdeployment import ModelSource
from modelyard.api.meta import Refusal
from modelyard.api.modelprofile import ModelProfile
from modelyard.catalog.modelconfig import read_config
from modelyard.catalog.weightfile import (
    LENGTH_BYTES,
    PLAIN_TYPES,
    DamagedHeaderError,
    count_header,
    read_header_length,
    select_weights,
)
from modelyard.render.sources import HubSource, parse_source

_LARGEST_JSON: Final = 1024 * 1024
"""Bytes of a JSON file or answer. A config.json has a few kB."""

_LARGEST_INDEX: Final = 64 * 1024 * 1024
"""Bytes of the list of a sharded model's tensors: some 100 bytes each, of up to some 100,000 tensors."""

_MOST_FILES: Final = 1000
"""Weight files of one model that are looked into."""

_CONFIG: Final = "config.json"
_MODELOPT_CONFIG: Final = "hf_quant_config.json"
"""Where NVIDIA ModelOpt says how it quantised, in repositories whose config.json does not
(https://github.com/NVIDIA/TensorRT-Model-Optimizer)."""

_REMEDY: Final = "set model.profile in the spec to do without it"


class _RefusedError(Exception):
    """Carries a refusal to the public function."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.refusal = Refusal(reason, message)


class _Files(Protocol):
    """Where the files of one model are."""

    def read(self, name: str, limit: int) -> bytes | None:
        """Return a file's content; None where there is no such file."""

    def count_weights(self) -> Counter[str]:
        """Return how many numbers of each type the weight files have; empty where that is not known."""


def read_profile(
    source: str, *, endpoint: str | None, token: str | None, timeout: float
) -> ModelProfile | Refusal:
    """Return the profile of a model on the hub.

    `source` is `hf://organisation/repository[:tag][@revision]` or the bare path; the tag of a GGUF file becomes the
    quantisation. `endpoint` is the hub's URL (None: huggingface.co or what HF_ENDPOINT says), `token` is sent only to
    it (None: none, whatever is saved on this machine), `timeout` is in seconds, for each connection and each answer.
    """
    full = source if "://" in source else f"hf://{source}"
    try:
        TypeAdapter(ModelSource).validate_python(full)
    except ValidationError:
        return Refusal(
            "ModelNotFound", "model.source is not of the form hf://organisation/repository[:tag][@revision]"
        )
    parsed = parse_source(full)
    if not isinstance(parsed, HubSource):
        return Refusal("ModelNotFound", "model.source is not on the hub: only hf:// sources are read from it")
    try:
        return _read(_HubFiles(parsed, endpoint or constants.ENDPOINT, token, timeout), parsed.tag)
    except _RefusedError as error:
        return error.refusal


def read_local(folder: Path) -> ModelProfile | Refusal:
    """Return the profile of a model in a folder: its `config.json` and the headers of its `*.safetensors`."""
    try:
        return _read(_LocalFiles(folder), None)
    except _RefusedError as error:
        return error.refusal
    except OSError as error:
        return Refusal("ModelNotFound", f"{folder} cannot be read ({error.strerror}); {_REMEDY}")


def _read(files: _Files, tag: str | None) -> ModelProfile | Refusal:
    raw = files.read(_CONFIG, _LARGEST_JSON)
    if raw is None:
        raise _RefusedError("ModelNotFound", f"the model has no {_CONFIG}; set model.profile in the spec")
    config = _parse(raw, _CONFIG)
    weights = files.count_weights()
    if tag is not None:
        config = {key: value for key, value in config.items() if key != "quantization_config"}
    elif not config.get("quantization_config"):
        config = {**config, "quantization_config": _find_quantization(files, weights)}
    profile = read_config(config, weights.total() or None)
    if tag is None or isinstance(profile, Refusal):
        return profile
    try:
        return ModelProfile.model_validate({**profile.model_dump(), "quantization": tag})
    except ValidationError:
        return Refusal("ModelNotFound", f"the tag {tag!r} of model.source is no name of a quantisation")


def _find_quantization(files: _Files, weights: Counter[str]) -> dict[str, Any] | None:
    """Return what `quantization_config` should say of a model whose configuration says nothing."""
    if not weights:
        return None
    kind, _ = weights.most_common(1)[0]
    if kind in PLAIN_TYPES:
        return None
    raw = files.read(_MODELOPT_CONFIG, _LARGEST_JSON)
    if raw is not None:
        return {**_parse(raw, _MODELOPT_CONFIG), "quant_method": "modelopt"}
    if kind.startswith("F8_"):
        return {"quant_method": "fp8"}
    raise _RefusedError(
        "UnreadableModelConfig",
        f"the weights are stored as {kind} and {_CONFIG} has no quantization_config; set model.profile in the spec",
    )


def _parse(raw: bytes, name: str) -> dict[str, Any]:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise _RefusedError("UnreadableModelConfig", f"{name} of the model is no JSON object; {_REMEDY}")
    return document


class _HubFiles:
    """A repository of the hub."""

    def __init__(self, source: HubSource, endpoint: str, token: str | None, timeout: float) -> None:
        self._source = source
        self._endpoint = endpoint.rstrip("/")
        # Identity: a limit on bytes then is one on memory.
        self._headers = {"user-agent": "modelyard", "accept-encoding": "identity"}
        if token:
            # The session drops it where a redirect leads to another host.
            self._headers["authorization"] = f"Bearer {token}"
        self._timeout = timeout

    def read(self, name: str, limit: int) -> bytes | None:
        """Return a file of the repository at the source's revision."""
        with self._open(self._url(name), name) as chunks:
            return None if chunks is None else _take(chunks, limit, name)

    def count_weights(self) -> Counter[str]:
        """Ask the hub for its own count, and a hub that keeps none for the header of an unsharded model's file."""
        path = f"{self._endpoint}/api/models/{self._source.repository}"
        if self._source.revision is not None:
            path += f"/revision/{quote(self._source.revision, safe='')}"
        with self._open(f"{path}?expand=safetensors", "safetensors metadata") as chunks:
            raw = None if chunks is None else _take(chunks, _LARGEST_JSON, "safetensors metadata")
        metadata = None if raw is None else _parse(raw, "safetensors metadata").get("safetensors")
        counts = metadata.get("parameters") if isinstance(metadata, Mapping) else None
        if isinstance(counts, Mapping):
            return select_weights(counts)
        name = constants.SAFETENSORS_SINGLE_FILE
        with self._open(self._url(name), name) as chunks:
            return Counter() if chunks is None else _count_stream(chunks, name)

    def _url(self, name: str) -> str:
        return hf_hub_url(
            self._source.repository, name, revision=self._source.revision, endpoint=self._endpoint
        )

    @contextmanager
    def _open(self, url: str, name: str) -> Iterator[Iterator[bytes] | None]:
        """Open an answer's body; None where the repository lacks the file."""
        deadline = time.monotonic() + self._timeout
        repository = self._source.repository
        try:
            with get_session().stream("GET", url, headers=self._headers, timeout=self._timeout) as answer:
                if answer.is_success:
                    yield _until(deadline, answer.iter_bytes(), self._timeout)
                elif answer.status_code == 404 and not _lacks_repository(answer, name):
                    yield None
                else:
                    raise self._refuse(answer)
        except (httpx2.TimeoutException, TimeoutError) as error:
            raise _RefusedError(
                "HubUnreachable",
                f"{self._endpoint} gave no {name} of {repository} within {self._timeout:g} s; {_REMEDY}",
            ) from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OfflineModeIsEnabled) as error:
            raise _RefusedError(
                "HubUnreachable",
                f"{self._endpoint} could not be reached for {repository} ({type(error).__name__}); {_REMEDY}",
            ) from error

    def _refuse(self, answer: httpx2.Response) -> _RefusedError:
        """Say what an error of the hub means for the model."""
        repository, status = self._source.repository, answer.status_code
        code = answer.headers.get("x-error-code")
        if code == "GatedRepo" or status == 403:
            return _RefusedError(
                "ModelGated",
                f"{repository} is gated: accept its licence on the hub and name a token in model.tokenSecret that may "
                f"read it, or {_REMEDY}",
            )
        if code == "RevisionNotFound":
            return _RefusedError(
                "ModelNotFound",
                f"{repository} has no revision {self._source.revision!r}; correct model.source",
            )
        if status in (401, 404):
            return _RefusedError(
                "ModelNotFound",
                f"{repository} is not on {self._endpoint}, or is private: correct model.source, or name a token in "
                "model.tokenSecret that may read it",
            )
        return _RefusedError(
            "HubUnreachable", f"{self._endpoint} answered {status} for {repository}; {_REMEDY}"
        )


def _lacks_repository(answer: httpx2.Response, name: str) -> bool:
    """Tell whether a 404 is about more than the file. A hub that sends no error code means the file."""
    code = answer.headers.get("x-error-code")
    return code in {"RepoNotFound", "RevisionNotFound", "GatedRepo"} or (code is None and name == _CONFIG)


def _until(deadline: float, chunks: Iterator[bytes], timeout: float) -> Iterator[bytes]:
    """Pass chunks on until the deadline: a server that trickles never runs into a timeout between two of them."""
    for chunk in chunks:
        if time.monotonic() > deadline:
            raise TimeoutError(f"not complete within {timeout:g} s")
        yield chunk


def _take(chunks: Iterator[bytes], limit: int, name: str) -> bytes:
    taken = bytearray()
    for chunk in chunks:
        taken += chunk
        if len(taken) > limit:
            raise _RefusedError(
                "UnreadableModelConfig", f"{name} of the model is larger than {limit} bytes; {_REMEDY}"
            )
    return bytes(taken)


def _count_stream(chunks: Iterator[bytes], name: str) -> Counter[str]:
    """Count from the beginning of a weight file, and read no further than its header."""
    taken = bytearray()
    end = LENGTH_BYTES
    try:
        for chunk in chunks:
            taken += chunk
            if len(taken) >= LENGTH_BYTES:
                end = LENGTH_BYTES + read_header_length(bytes(taken[:LENGTH_BYTES]))
            if len(taken) >= end:
                break
        read_header_length(bytes(taken[:LENGTH_BYTES]))
        return count_header(bytes(taken[LENGTH_BYTES:end]))
    except DamagedHeaderError as error:
        raise _RefusedError(
            "UnreadableModelConfig", f"{name} of the model is damaged: {error}; {_REMEDY}"
        ) from error


class _LocalFiles:
    """A folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str, limit: int) -> bytes | None:
        """Return a file of the folder."""
        path = self._folder / name
        # Anything but a file (a pipe, a device) could block for ever.
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return _take(iter([file.read(limit + 1)]), limit, name)

    def count_weights(self) -> Counter[str]:
        """Add up the headers of the weight files that an engine would load."""
        counts: Counter[str] = Counter()
        for name in self._weight_files():
            path = self._folder / name
            if not path.is_file():
                raise _RefusedError("ModelNotFound", f"{path} is missing; complete the model's folder")
            with path.open("rb") as file:
                counts += _count_stream(iter(lambda: file.read(65536), b""), name)
        return counts

    def _weight_files(self) -> list[str]:
        """Return what the index names; without one, the single file, else all: a folder may hold copies besides."""
        raw = self.read(constants.SAFETENSORS_INDEX_FILE, _LARGEST_INDEX)
        if raw is not None:
            listed = _parse(raw, constants.SAFETENSORS_INDEX_FILE).get("weight_map")
            names = sorted({str(name) for name in listed.values()}) if isinstance(listed, dict) else []
        elif (self._folder / constants.SAFETENSORS_SINGLE_FILE).is_file():
            names = [constants.SAFETENSORS_SINGLE_FILE]
        else:
            names = sorted(path.name for path in self._folder.glob("*.safetensors"))
        if len(names) > _MOST_FILES or any(Path(name).name != name for name in names):
            raise _RefusedError(
                "UnreadableModelConfig",
                f"the model's index names files outside its folder, or more than {_MOST_FILES}; {_REMEDY}",
            )
        return names
