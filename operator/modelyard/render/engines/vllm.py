"""vLLM: `vllm serve`, the entrypoint of the image `vllm/vllm-openai`.

Flags and variables: https://docs.vllm.ai/en/v0.32.0/cli/serve/ and
https://docs.vllm.ai/en/v0.32.0/configuration/env_vars/, compared with the 0.32.0 package.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from modelyard.api.llmdeployment import Model
from modelyard.api.meta import Refusal
from modelyard.catalog.models import find_model
from modelyard.catalog.quantization import VLLM_DEPRECATED
from modelyard.render.engines.base import check_parameters
from modelyard.render.sources import MODEL_MOUNT, ClaimSource, HubSource, join_path
from modelyard.render.workload import Workload

_SWITCHES = frozenset(
    {"enable-auto-tool-choice", "enable-chunked-prefill", "enable-prefix-caching", "enforce-eager"}
)
"""Parameters without a value. Each has a `--no-` form."""

_MAX_LORAS = 4
"""Adapters that may be in one batch. Each takes GPU memory of its own, so not every adapter that is served; vLLM's
default of 1 makes requests for different adapters wait for each other."""


_MASTER_PORT = 29501
"""TCP port at which the engines of a group find each other: vLLM's default."""


@dataclass(frozen=True, slots=True)
class VLLM:
    """The adapter of vLLM."""

    port: int = 8000
    health_path: str = "/health"
    metrics_path: str = "/metrics"
    drains_on_sigterm: bool = True
    address_variable: str | None = "VLLM_HOST_IP"

    def check(self, workload: Workload) -> Refusal | None:
        """Refuse what vLLM has no flag for."""
        source = workload.source
        if isinstance(source, HubSource) and source.tag:
            return Refusal(
                "UnsupportedSource",
                f"model.source names the file tag {source.tag!r}, which only LlamaCpp uses: "
                "remove it, or change engine.name",
            )
        for name, adapter in workload.adapters:
            if isinstance(adapter, HubSource) and (adapter.tag or adapter.revision):
                return Refusal(
                    "UnsupportedSource",
                    f"the source of adapter {name!r} names a tag or revision, which vLLM cannot choose for adapters: "
                    "remove it, or copy that revision to a claim and use pvc://",
                )
        engine = workload.deployment.spec.engine
        return check_parameters(engine, switches=_SWITCHES) or _check_tools(engine.parameters)

    def build_arguments(self, workload: Workload) -> tuple[str, ...]:
        """Return the arguments of `vllm serve`.

        Every value is joined to its flag by `=`, so a value that begins with a dash stays a value. Only the list
        of adapters cannot be: its items follow the flag, and begin with a letter or digit.
        """
        return (*_own_arguments(self, workload), *_user_arguments(workload.deployment.spec.engine.parameters))

    def build_group_arguments(self, workload: Workload, *, leads: bool) -> tuple[str, ...]:
        """Return the flags of vLLM's own way over several nodes, without Ray.

        https://docs.vllm.ai/en/v0.32.0/serving/parallelism_scaling/. LeaderWorkerSet sets the variables:
        https://lws.sigs.k8s.io/docs/reference/labels-annotations-and-environment-variables/.
        """
        shared = (
            f"--nnodes={workload.nodes}",
            "--master-addr=$(LWS_LEADER_ADDRESS)",
            f"--master-port={_MASTER_PORT}",
            # The others may still wait for a node when the first one looks for them.
            f"--distributed-timeout-seconds={workload.provision_seconds + workload.start_seconds}",
        )
        if leads:
            return (*shared, "--node-rank=0")
        return (*shared, "--node-rank=$(LWS_WORKER_INDEX)", "--headless")

    def build_environment(self) -> Mapping[str, str]:
        """Return vLLM's folders and switches."""
        return {
            # Anything that vLLM, PyTorch or a kernel library compiles or downloads goes to the cache volume.
            "CUDA_CACHE_PATH": "/cache/cuda",
            "DG_JIT_CACHE_DIR": "/cache/deep_gemm",
            "FLASHINFER_WORKSPACE_BASE": "/cache/flashinfer",
            "NUMBA_CACHE_DIR": "/cache/numba",
            "OUTLINES_CACHE_DIR": "/cache/outlines",
            "TILELANG_CACHE_DIR": "/cache/tilelang",
            "TORCHINDUCTOR_CACHE_DIR": "/cache/torchinductor",
            "TRITON_CACHE_DIR": "/cache/triton",
            "VLLM_CACHE_ROOT": "/cache/vllm",
            "VLLM_CONFIG_ROOT": "/cache/vllm-config",
            "VLLM_NO_USAGE_STATS": "1",
        }


def _check_tools(parameters: Mapping[str, str]) -> Refusal | None:
    """Refuse what ends vLLM at its start: `validate_parsed_serve_args` of vllm/entrypoints/launchers/cli_args.py."""
    chooses = parameters.get("enable-auto-tool-choice", "false") != "false"
    if not chooses or "tool-call-parser" in parameters:
        return None
    return Refusal(
        "InvalidParameter",
        "engine.parameters.enable-auto-tool-choice needs engine.parameters.tool-call-parser: name the model's parser, "
        "or remove it",
    )


def _own_arguments(engine: VLLM, workload: Workload) -> Iterator[str]:
    model, source = workload.deployment.spec.model, workload.source
    if isinstance(source, HubSource):
        yield f"--model={source.repository}"
        if source.revision:
            yield f"--revision={source.revision}"
    else:
        yield f"--model={join_path(MODEL_MOUNT, source.path)}"
    yield f"--served-model-name={workload.deployment.served_name}"
    yield "--host=0.0.0.0"
    yield f"--port={engine.port}"
    # Without it, SIGTERM aborts running requests (https://github.com/vllm-project/vllm/pull/34730).
    yield f"--shutdown-timeout={workload.drain_seconds}"
    # Usage says how much of the prompt came from the prefix cache. Streams tell theirs where they are asked to, which
    # the gateway does; `--enable-force-include-usage` would put it into every event.
    yield "--enable-prompt-tokens-details"
    if workload.tensor > 1:
        yield f"--tensor-parallel-size={workload.tensor}"
    if workload.pipeline > 1:
        yield f"--pipeline-parallel-size={workload.pipeline}"
    if workload.context_length is not None:
        yield f"--max-model-len={workload.context_length}"
    if model.quantization is not None:
        yield f"--quantization={model.quantization}"
    if (model.quantization or _stored_format(model)) in VLLM_DEPRECATED:
        yield "--allow-deprecated-quantization"
    if workload.adapters:
        yield "--enable-lora"
        yield f"--max-loras={min(len(workload.adapters), _MAX_LORAS)}"
        yield f"--max-cpu-loras={len(workload.adapters)}"
        yield "--lora-modules"
        for name, adapter in workload.adapters:
            yield f"{name}={_adapter_path(workload, adapter)}"


def _stored_format(model: Model) -> str | None:
    """Return how the files are quantised, as far as the spec or the catalogue says."""
    known = find_model(model.source) if model.profile is None else None
    profile = model.profile if known is None else known.profile
    return None if profile is None else profile.quantization


def _adapter_path(workload: Workload, adapter: HubSource | ClaimSource) -> str:
    if isinstance(adapter, HubSource):
        return adapter.repository
    return join_path(workload.claim_mounts[adapter.claim], adapter.path)


def _user_arguments(parameters: Mapping[str, str]) -> Iterator[str]:
    for name, value in sorted(parameters.items()):
        if name in _SWITCHES:
            yield f"--no-{name}" if value == "false" else f"--{name}"
        else:
            yield f"--{name}={value}"
