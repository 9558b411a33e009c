"""How a model's published weights are quantised: from `quantization_config`, or from the repository's name.

Formats are named as vLLM's `--quantization` and llama.cpp name them. A container format (compressed-tensors,
ModelOpt) is resolved to what is inside.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from modelyard.catalog.modelfields import ConfigFields, UnreadableConfigError, shorten

PACKED: Final = frozenset({"awq", "gptq", "gptq-int8", "bitsandbytes", "nvfp4", "mxfp4"})
"""Formats that store several weights, or a weight and its scale, in one number of the file: the numbers in a weight
file of these do not count parameters."""

LLAMA_CPP_DEFAULT: Final = "Q4_K_M"
"""What llama.cpp takes from a GGUF repository when no tag is given
(https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md, `--hf-repo`)."""

_SUFFIXES: Final[tuple[tuple[str, str | None], ...]] = (
    (r"fp8(?:[-_](?:dynamic|static|block|kv|static-pertensor))?", "fp8"),
    (r"quantized\.w8a8", "int8"),
    (r"quantized\.w8a16", "gptq-int8"),
    (r"quantized\.w4a16", "gptq"),
    (r"awq(?:[-_](?:int4|4bit))?", "awq"),
    (r"gptq(?:[-_](?:int4|4bit))?", "gptq"),
    (r"gptq[-_](?:int8|8bit)", "gptq-int8"),
    (r"(?:unsloth-)?bnb-4bit", "bitsandbytes"),
    (r"(?:bnb-8bit|int8)", "int8"),
    (r"(?:nvfp4|fp4)", "nvfp4"),
    (r"mxfp4", "mxfp4"),
    (r"bf16", None),
)
"""Ends of the names of repositories that hold another's weights in another format; None: not quantised."""

_SUFFIX_PATTERNS: Final = tuple(
    (re.compile(rf"[-_]{suffix}$", re.IGNORECASE), format_) for suffix, format_ in _SUFFIXES
)

_GGUF: Final = re.compile(r"(?:[-_](?:qat|i1))?(?:[-.](?P<type>i?q[0-9]\w*|b?f16))?[-_]gguf$", re.IGNORECASE)
"""The end of a GGUF repository's name, with the type of its weights where the name says it."""


def split_quantized_name(name: str) -> tuple[str, str | None] | None:
    """Return what stands before the suffix of a quantised repository's name, and the format; None without one.

    The format is None where the suffix says that the weights are not quantised.
    """
    if match := _GGUF.search(name):
        return name[: match.start()], (match["type"] or LLAMA_CPP_DEFAULT).upper()
    for pattern, quantization in _SUFFIX_PATTERNS:
        if match := pattern.search(name):
            return name[: match.start()], quantization
    return None


def read_quantization(config: ConfigFields) -> str | None:
    """Return the format that `quantization_config` states; None where there is none. Raises UnreadableConfigError."""
    stated = config.mapping("quantization_config", "compression_config")
    if not stated:
        return None
    return read_quantization_fields(stated)


def read_quantization_fields(stated: Mapping[str, Any]) -> str:
    """Return the format of a `quantization_config`. Raises UnreadableConfigError for one that is not known."""
    fields = ConfigFields(stated, {})
    method = fields.get("quant_method")
    if method is None and fields.get("quant_algo") is not None:
        method = "modelopt"
    if not isinstance(method, str):
        raise UnreadableConfigError("quantization_config.quant_method is missing")
    method = method.lower()
    if method in {"fp8", "fbgemm_fp8", "mxfp4", "awq"}:
        return method
    if method in {"gptq", "auto-round"}:
        return _read_bits(fields)
    if method == "bitsandbytes":
        return "int8" if fields.flag("load_in_8bit", default=False) else "bitsandbytes"
    if method.startswith("modelopt"):
        return _read_modelopt(fields)
    if method == "compressed-tensors":
        return _read_compressed_tensors(fields)
    raise UnreadableConfigError(f"quantization_config.quant_method {shorten(method)!r} is not known")


def _read_bits(fields: ConfigFields) -> str:
    bits = fields.integer("bits", "w_bit")
    if bits not in (4, 8):
        raise UnreadableConfigError(f"quantization_config.bits {bits} is neither 4 nor 8")
    return "gptq" if bits == 4 else "gptq-int8"


def _read_modelopt(fields: ConfigFields) -> str:
    """Read ModelOpt's `quant_algo`; `hf_quant_config.json` nests it one deeper."""
    algorithm = fields.get("quant_algo")
    if algorithm is None:
        algorithm = fields.mapping("quantization").get("quant_algo")
    if isinstance(algorithm, str):
        for prefix, quantization in (
            ("FP8", "fp8"),
            ("NVFP4", "nvfp4"),
            ("INT8", "int8"),
            ("W4A16_AWQ", "awq"),
        ):
            if algorithm.upper().startswith(prefix):
                return quantization
    raise UnreadableConfigError(f"quantization_config.quant_algo {shorten(algorithm)!r} is not known")


def _read_compressed_tensors(fields: ConfigFields) -> str:
    """Read the weights of the first group: type and bits, packed or not."""
    groups = list(fields.mapping("config_groups").values())
    if not groups or not isinstance(groups[0], Mapping):
        raise UnreadableConfigError("quantization_config.config_groups is missing")
    group = ConfigFields(groups[0], {})
    weights = ConfigFields(group.mapping("weights"), {})
    kind, bits = weights.get("type"), weights.integer("num_bits")
    style = group.get("format") or fields.get("format")
    packed = isinstance(style, str) and "pack" in style
    if kind == "float" and bits == 8:
        return "fp8"
    if kind == "float" and bits == 4:
        return "mxfp4" if isinstance(style, str) and "mxfp4" in style else "nvfp4"
    if kind == "int" and bits == 8:
        return "gptq-int8" if packed else "int8"
    if kind == "int" and bits == 4:
        return "gptq"
    raise UnreadableConfigError(
        f"quantization_config weights of {bits} bits and type {shorten(kind)!r} are not known"
    )
