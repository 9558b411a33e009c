"""What a spec says of its model that the model's files contradict: the engine would fail at start."""

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.meta import Refusal
from modelyard.api.modelprofile import ModelProfile
from modelyard.catalog.models import CatalogModel, find_model
from modelyard.catalog.quantization import VLLM_CONVERTS, VLLM_PLUGIN_METHODS, VLLM_READS, weight_format
from modelyard.core.reasons import Code


def check_model(
    deployment: LLMDeployment, profile: ModelProfile | None, *, own_images: bool = False
) -> Refusal | None:
    """Return why the model cannot be served as the spec asks, None if nothing is known against it.

    `own_images`: the platform team has put images of its own in place of the catalogue's, which may have plugins.
    """
    model = deployment.spec.model
    if (
        profile is not None
        and model.context_length is not None
        and model.context_length > profile.context_length
    ):
        return Refusal(
            Code.DOES_NOT_FIT,
            f"model.contextLength is {model.context_length}, but the model allows {profile.context_length}: "
            "lower model.contextLength",
        )
    if deployment.spec.engine.name != "vLLM":
        return None
    if not own_images and _is_gguf(model.source):
        return Refusal(
            Code.UNSUPPORTED_SOURCE,
            f"model.source {model.source} holds GGUF files, which vLLM does not load without a plugin: change "
            "engine.name to LlamaCpp, or choose the original repository",
        )
    return _check_quantization(deployment, own_images=own_images)


def _check_quantization(deployment: LLMDeployment, *, own_images: bool) -> Refusal | None:
    """Return why vLLM would not take `model.quantization` or, where the catalogue knows it, the files' format."""
    model, known = deployment.spec.model, find_model(deployment.spec.model.source)
    if model.profile is not None:
        known = None  # The spec knows the files better.
    asked = model.quantization
    stored = None if known is None else known.profile.quantization
    plugins = () if own_images else VLLM_PLUGIN_METHODS
    if asked in plugins or (asked is None and stored in plugins):
        return Refusal(
            Code.INVALID_PARAMETER,
            f"{stored if asked is None else f'model.quantization {asked}'} needs a plugin that vLLM's image lacks: "
            "choose fp8, which is made at load, or files in another format; the platform team may offer an image "
            "with the plugin",
        )
    if asked is None:
        return None
    if asked not in VLLM_CONVERTS and asked not in VLLM_READS:
        # A plugin may register any name.
        return None if own_images else _refuse_name(asked)
    return None if known is None else _check_files(asked, model.source, known)


def _check_files(asked: str, source: str, known: CatalogModel) -> Refusal | None:
    stored = weight_format(known.profile.quantization)
    if known.profile.quantization is None:
        repository = source.partition("://")[2].partition("@")[0].lower()
        # Another's upload under the same name may hold anything.
        published = repository in {name.lower() for name in known.repositories}
        if asked in VLLM_CONVERTS | VLLM_PLUGIN_METHODS or not published:
            return None
        return Refusal(
            Code.INVALID_PARAMETER,
            f"model.quantization is {asked}, but the files of {source} are in 16 bits: choose a repository whose "
            "files are in that format, or fp8, which is made at load",
        )
    if stored is None or stored.name in VLLM_READS.get(asked, ()):
        return None
    return Refusal(
        Code.INVALID_PARAMETER,
        f"model.quantization is {asked}, but the files of {source} are in {stored.name}: leave model.quantization "
        "out, as vLLM reads it from the files",
    )


def _refuse_name(asked: str) -> Refusal:
    return Refusal(
        Code.INVALID_PARAMETER,
        f"model.quantization {asked} is no format of vLLM: leave it out, as vLLM reads it from the files, or choose "
        f"one of {', '.join(sorted(VLLM_CONVERTS))} to convert at load",
    )


def _is_gguf(source: str) -> bool:
    path = source.partition("://")[2].partition("@")[0].partition(":")[0].lower()
    return path.endswith(".gguf") or (source.startswith("hf://") and path.endswith("-gguf"))
