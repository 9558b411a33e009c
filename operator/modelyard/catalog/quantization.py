"""Formats of quantised weights: how many bits a weight takes, and in which precision it is multiplied.

Bits include what is stored beside the values: scales, zero points and block minima.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """How the weights of a model are stored."""

    name: str
    bits: float
    """Bits of one weight. Of a GGUF type: the mean over the whole file."""
    compute: str
    """Precision in which matrices are multiplied where the accelerator has it (a key of `Hardware.throughput`), else
    `bf16`. Formats that only shrink the weights are unpacked and multiplied in 16 bits."""
    keeps_embeddings: bool
    """True: the input embeddings and the output layer stay in 16 bits."""
    source: str
    keeps_attention: bool = False
    """True: only the feed-forward network is quantised, as in gpt-oss, whose experts alone are MXFP4."""

    def compute_precision(self, throughput: Mapping[str, float]) -> str:
        """Return the precision in which an accelerator with these speeds multiplies.

        vLLM runs fp8 on an A100 or T4, fp4 on an H100: by Marlin kernels, which unpack to 16 bits
        (https://docs.vllm.ai/en/latest/features/quantization/#supported-hardware).
        """
        return self.compute if self.compute in throughput else "bf16"


_VLLM = "https://docs.vllm.ai/en/latest/features/quantization/"
_LLAMA_CPP = "https://github.com/ggml-org/llama.cpp/blob/master/tools/quantize/README.md"
"""Bits by weight of Llama 3.1 8B."""
_LLAMA_CPP_HELP = "https://github.com/ggml-org/llama.cpp/blob/master/tools/quantize/quantize.cpp"
"""File sizes of Llama 3 8B (8,030,261,248 weights), here as bits by weight."""

_FORMATS = (
    WeightFormat("bf16", 16.0, "bf16", keeps_embeddings=True, source="https://arxiv.org/abs/1905.12322"),
    WeightFormat("fp8", 8.0, "fp8", keeps_embeddings=True, source=f"{_VLLM}fp8/"),
    # Meta's own: attention stays in 16 bits, and so do the first and last of its 126 layers (not counted here).
    WeightFormat(
        "fbgemm-fp8",
        8.0,
        "fp8",
        keeps_embeddings=True,
        keeps_attention=True,
        source="https://arxiv.org/abs/2407.21783",
    ),
    # One scale for each output channel: less than 0.01 bits.
    WeightFormat("int8", 8.0, "int8", keeps_embeddings=True, source=f"{_VLLM}int8/"),
    # For each group of 128 a 16-bit scale and a 4-bit zero point: 4 + 20 / 128.
    WeightFormat("awq", 4.15625, "bf16", keeps_embeddings=True, source="https://arxiv.org/abs/2306.00978"),
    WeightFormat("gptq", 4.15625, "bf16", keeps_embeddings=True, source="https://arxiv.org/abs/2210.17323"),
    # For each group of 128 a 16-bit scale and an 8-bit zero point: 8 + 24 / 128.
    WeightFormat(
        "gptq-int8", 8.1875, "bf16", keeps_embeddings=True, source="https://arxiv.org/abs/2210.17323"
    ),
    # NF4 with a 32-bit scale for each block of 64, not quantised again.
    WeightFormat(
        "bitsandbytes", 4.5, "bf16", keeps_embeddings=True, source="https://arxiv.org/abs/2305.14314"
    ),
    # An 8-bit scale for each block of 16.
    WeightFormat(
        "nvfp4",
        4.5,
        "fp4",
        keeps_embeddings=True,
        source="https://developer.nvidia.com/blog/introducing-nvfp4-for-efficient-and-accurate-low-precision-inference/",
    ),
    # An 8-bit scale for each block of 32. vLLM multiplies it with 16-bit activations.
    WeightFormat(
        "mxfp4",
        4.25,
        "bf16",
        keeps_embeddings=True,
        source="https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf",
        keeps_attention=True,
    ),
)

_GGUF_BITS: Final[Mapping[str, float]] = {
    "IQ1_S": 2.0042,
    "IQ1_M": 2.1460,
    "IQ2_XXS": 2.3824,
    "IQ2_XS": 2.5882,
    "IQ2_S": 2.7403,
    "IQ2_M": 2.9294,
    "IQ3_XXS": 3.2548,
    "IQ3_XS": 3.4977,
    "IQ3_S": 3.6606,
    "IQ3_M": 3.7628,
    "IQ4_XS": 4.4597,
    "IQ4_NL": 4.6818,
    "Q2_K_S": 2.9697,
    "Q2_K": 3.1593,
    "Q3_K_S": 3.6429,
    "Q3_K_L": 4.2979,
    "Q4_K_S": 4.6672,
    "Q4_K_M": 4.8944,
    "Q5_K_S": 5.5704,
    "Q5_K_M": 5.7036,
    "Q6_K": 6.5633,
    "Q8_0": 8.5008,
    "F16": 16.0,
    "BF16": 16.0,
    "F32": 32.0,
}
_GGUF_SIZES: Final[Mapping[str, float]] = {
    "Q3_K_M": 4.00,
    "Q4_0": 4.64,
    "Q4_1": 5.11,
    "Q5_0": 5.57,
    "Q5_1": 6.04,
}

_ALIASES: Final[Mapping[str, str]] = {
    "none": "bf16",
    "auto": "bf16",
    "bfloat16": "bf16",
    "float16": "bf16",
    "fp16": "bf16",
    "half": "bf16",
    "ptpc-fp8": "fp8",
    "deepgemm-fp8": "fp8",
    "fp8-w8a8": "fp8",
    "fp8-per-tensor": "fp8",
    "fp8-per-block": "fp8",
    "fp8-per-channel": "fp8",
    "modelopt": "fp8",
    "w8a8": "int8",
    "int8-w8a8": "int8",
    "experts-int8": "int8",
    # Several widths go by these two names. Where only the name is known, the larger of the usual ones is assumed.
    "compressed-tensors": "fp8",
    "quark": "fp8",
    "awq-marlin": "awq",
    "auto-awq": "awq",
    "int4": "gptq",
    "w4a16": "gptq",
    "gptq-int4": "gptq",
    "gptq-marlin": "gptq",
    "auto-round": "gptq",
    "moe-wna16": "gptq",
    "w8a16": "gptq-int8",
    "bnb": "bitsandbytes",
    "nf4": "bitsandbytes",
    "modelopt-fp4": "nvfp4",
    "fp4": "nvfp4",
    "gpt-oss-mxfp4": "mxfp4",
    "mxfp4-moe": "mxfp4",
}
"""vLLM's names (https://docs.vllm.ai/en/latest/api/vllm/model_executor/layers/quantization/), and those that models
carry, with dashes."""


def _by_name() -> Mapping[str, WeightFormat]:
    formats = {item.name: item for item in _FORMATS}
    formats |= {alias: formats[name] for alias, name in _ALIASES.items()}
    for table, source in ((_GGUF_BITS, _LLAMA_CPP), (_GGUF_SIZES, _LLAMA_CPP_HELP)):
        for name, bits in table.items():
            # The mean over the file counts the embeddings, whatever their own type.
            gguf = WeightFormat(name, bits, "bf16", keeps_embeddings=False, source=source)
            formats.setdefault(_normalise(name), gguf)
    return MappingProxyType(formats)


VLLM_PLUGIN_METHODS: Final = frozenset({"bitsandbytes", "gguf"})
"""Values of `--quantization` that plugins add since vLLM 0.28 (https://github.com/vllm-project/vllm/issues/39583 and
pull request 43529). They are not in its image."""

VLLM_CONVERTS: Final = frozenset(
    {
        "experts_int8",
        "fp8",
        "fp8_per_block",
        "fp8_per_channel",
        "fp8_per_tensor",
        "int8_per_channel_weight_only",
        "mxfp4",
        "mxfp8",
        "nvfp4_per_token",
    }
)
"""Values of `--quantization` for which vLLM turns 16-bit files into fewer bits while it loads them. As in the 0.32.0
package: the shorthands of vllm/config/quantization.py, and the methods that need no configuration
(vllm/model_executor/model_loader/weight_utils.py, `get_quant_config`)."""

VLLM_DEPRECATED: Final = frozenset({"fbgemm_fp8", "fp_quant"})
"""Formats that vLLM 0.32 takes only with `--allow-deprecated-quantization` (`DEPRECATED_QUANTIZATION_METHODS` of
vllm/model_executor/layers/quantization/__init__.py)."""

_INT4: Final = frozenset({"awq", "gptq", "gptq-int8"})
_CONTAINED: Final = frozenset({*_INT4, "fp8", "int8", "mxfp4", "nvfp4"})

VLLM_READS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "auto_awq": frozenset({"awq"}),
        "auto_gptq": frozenset({"gptq", "gptq-int8"}),
        "awq": frozenset({"awq"}),
        "awq_marlin": frozenset({"awq"}),
        "compressed-tensors": _CONTAINED,
        "deepseek_v4_fp8": frozenset({"fp8"}),
        "fbgemm_fp8": frozenset({"fbgemm-fp8", "fp8"}),
        "fp8": frozenset({"fp8"}),
        "fp_quant": frozenset({"mxfp4", "nvfp4"}),
        "gpt_oss_mxfp4": frozenset({"mxfp4"}),
        "gptq": frozenset({"gptq", "gptq-int8"}),
        "gptq_marlin": frozenset({"gptq", "gptq-int8"}),
        "humming": _CONTAINED,
        "inc": _INT4,
        "modelopt": frozenset({"awq", "fp8", "nvfp4"}),
        "modelopt_fp4": frozenset({"nvfp4"}),
        "modelopt_mixed": frozenset({"fp8", "nvfp4"}),
        "modelopt_mxfp8": frozenset(),
        "moe_wna16": _INT4,
        "mxfp4": frozenset({"mxfp4"}),
        "quark": _CONTAINED,
        "torchao": frozenset({"fp8", "gptq", "int8"}),
        # What plugins add.
        "bitsandbytes": frozenset({"bitsandbytes"}),
    }
)
"""Formats of quantised files that vLLM may read, by the value of `--quantization` (`QuantizationMethods` of
vllm/model_executor/layers/quantization/__init__.py, 0.32.0). A name such as `-AWQ` does not say in which container the
files are, so several values may be right; vLLM refuses any other than the one that the files state."""


def weight_format(name: str | None) -> WeightFormat | None:
    """Return the format that a name means, in the words of vLLM, llama.cpp or a model card; None: not known.

    Case and the choice of dash or underscore do not matter. No name means 16 bits, as models are published.
    """
    return BF16 if name is None else FORMATS.get(_normalise(name))


def gguf_format(file_name: str) -> WeightFormat | None:
    """Return the GGUF type in the name of a file or tag, such as `llama-3.1-8b-Q4_K_M.gguf`; None: there is none."""
    text = f"-{_normalise(file_name.removesuffix('.gguf'))}-"
    names = [name for name in (*_GGUF_BITS, *_GGUF_SIZES) if f"-{_normalise(name)}-" in text]
    return FORMATS[_normalise(max(names, key=len))] if names else None


def _normalise(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-").replace("/", "-")


FORMATS: Final = _by_name()
"""All formats, by each of their names in lower case and with dashes: `fp8`, `awq-marlin`, `q4-k-m`."""

BF16: Final = FORMATS["bf16"]
"""16-bit floats, as models are published."""
