"""What a spec says of its model that the model's files contradict: the engine would fail at start."""

from typing import Final

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.meta import Refusal
from modelyard.api.modelprofile import ModelProfile
from modelyard.catalog.models import find_model
from modelyard.catalog.quantization import weight_format
from modelyard.core.reasons import Code

CONVERTED_AT_LOAD: Final = frozenset({"fp8", "ptpc_fp8", "bitsandbytes", "experts_int8", "torchao"})
"""Values of vLLM's `--quantization` that turn 16-bit files into fewer bits while they are loaded
(https://docs.vllm.ai/en/latest/features/quantization/). The others say what the files are."""


def check_model(deployment: LLMDeployment, profile: ModelProfile | None) -> Refusal | None:
    """Return why the model cannot be served as the spec asks, None if nothing is known against it."""
    model = deployment.spec.model
    if (
        profile is not None
        and model.context_length is not None
        and model.context_length > profile.context_length
    ):
        return Refusal(
            Code.DOES_NOT_FIT,
            f"model.contextLength is {model.context_length}, but the model allows {profile.context_length}: lower it",
        )
    return _check_quantization(deployment) if deployment.spec.engine.name == "vLLM" else None


def _check_quantization(deployment: LLMDeployment) -> Refusal | None:
    model = deployment.spec.model
    if _is_gguf(model.source):
        return Refusal(
            Code.UNSUPPORTED_SOURCE,
            f"model.source {model.source} holds GGUF files, which vLLM does not load from a repository: change "
            "engine.name to LlamaCpp, or choose the original repository",
        )
    asked = model.quantization
    if asked is None or asked in CONVERTED_AT_LOAD:
        return None
    if weight_format(asked) is None:
        return Refusal(
            Code.INVALID_PARAMETER,
            f"model.quantization {asked!r} is no format that is known: leave it out, as vLLM reads it from the files, "
            f"or choose one of {', '.join(sorted(CONVERTED_AT_LOAD))} to convert at load",
        )
    known = find_model(model.source)
    if model.profile is None and known is not None and known.profile.quantization is None:
        return Refusal(
            Code.INVALID_PARAMETER,
            f"model.quantization is {asked}, but the files of {model.source} are in 16 bits: choose a repository whose "
            "files are in that format, or fp8, which is made at load",
        )
    return None


def _is_gguf(source: str) -> bool:
    repository = source.partition("://")[2].partition("@")[0].partition(":")[0]
    return source.startswith("hf://") and repository.lower().endswith("-gguf")
