"""llama.cpp: `llama-server`, the entrypoint of the images `ghcr.io/ggml-org/llama.cpp:server-*`.

Flags: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING

from modelyard.api.meta import Refusal
from modelyard.api.quantities import parse_quantity
from modelyard.render.engines.base import check_parameters
from modelyard.render.sources import MODEL_MOUNT, ClaimSource, HubSource, join_path
from modelyard.render.workload import Workload

_DEFAULT_PARALLEL = 4
"""Requests that are answered at once; llama-server's own number when it chooses
(https://github.com/ggml-org/llama.cpp/issues/17300)."""

_INTEGERS = frozenset({"batch-size", "parallel", "threads", "threads-batch", "ubatch-size"})


@dataclass(frozen=True, slots=True)
class LlamaCpp:
    """The adapter of llama.cpp's server."""

    port: int = 8080
    health_path: str = "/health"
    metrics_path: str = "/metrics"
    # SIGTERM stops the task queue, and running requests with it: the pod has to wait before the signal.
    drains_on_sigterm: bool = False
    address_variable: str | None = None

    def check(self, workload: Workload) -> Refusal | None:
        """Refuse what llama-server has no flag for."""
        model, source = workload.deployment.spec.model, workload.source
        if isinstance(source, ClaimSource) and not source.path.endswith(".gguf"):
            return Refusal(
                "UnsupportedSource",
                "model.source must name a .gguf file for LlamaCpp, such as pvc://claim/model.gguf",
            )
        if isinstance(source, HubSource) and source.revision:
            return Refusal(
                "UnsupportedSource",
                f"model.source names the revision {source.revision!r}, which llama-server cannot choose: remove it, "
                "or copy that revision to a claim and use pvc://",
            )
        if (
            isinstance(source, HubSource)
            and source.tag
            and model.quantization
            and source.tag.lower() != model.quantization.lower()
        ):
            return Refusal(
                "UnsupportedSource",
                f"model.quantization {model.quantization!r} contradicts the tag {source.tag!r} of model.source: "
                "keep one of them",
            )
        return check_parameters(workload.deployment.spec.engine, integers=_INTEGERS)

    def build_arguments(self, workload: Workload) -> tuple[str, ...]:
        """Return the arguments of `llama-server`.

        Its parser knows no `--flag=value`: a flag that takes a value takes the next argument, whatever it begins
        with. All flags that users may set take exactly one value, so a value cannot become a flag.
        """
        # Updating a dictionary keeps the place of a key that is there, so a user's value replaces ours in place.
        options = _own_options(self, workload) | dict(
            sorted(workload.deployment.spec.engine.parameters.items())
        )
        arguments = (part for name, value in options.items() for part in (f"--{name}", value))
        return (*arguments, *_switches(workload))

    def build_group_arguments(self, workload: Workload, *, leads: bool) -> tuple[str, ...]:  # noqa: ARG002
        """Raise ValueError: a replica of llama-server runs on one node."""
        raise ValueError(f"{workload.deployment.key}: llama-server has no groups")

    def build_environment(self) -> Mapping[str, str]:
        """Return llama.cpp's folders."""
        return {"CUDA_CACHE_PATH": "/cache/cuda", "LLAMA_CACHE": "/cache/llama.cpp"}


def _own_options(engine: LlamaCpp, workload: Workload) -> dict[str, str]:
    """Return the options with a value that Modelyard sets. The user's value of `parallel` and others wins."""
    model, source = workload.deployment.spec.model, workload.source
    options: dict[str, str] = {}
    if isinstance(source, HubSource):
        tag = source.tag or model.quantization
        options["hf-repo"] = f"{source.repository}:{tag}" if tag else source.repository
    else:
        options["model"] = join_path(MODEL_MOUNT, source.path)
    options |= {"alias": workload.deployment.served_name, "host": "0.0.0.0", "port": str(engine.port)}  # noqa: S104
    parallel = _parallel(workload)
    options["parallel"] = str(parallel)
    if model.context_length is None and workload.fitting_context is not None:
        options["ctx-size"] = str(workload.fitting_context)
    if model.context_length is not None:
        # llama-server divides the context by the number of slots
        # (https://github.com/ggml-org/llama.cpp/issues/11681).
        options["ctx-size"] = str(model.context_length * parallel)
    if workload.accelerator.spec.resource_name is not None:
        options["gpu-layers"] = "all"
    elif workload.accelerator.spec.requests is not None:
        # The default is every core of the node, not those that the pod asked for.
        cores = parse_quantity(workload.accelerator.spec.requests.cpu) * workload.per_node
        options["threads"] = str(max(1, int(cores.to_integral_value(rounding=ROUND_CEILING))))
    return options


def _parallel(workload: Workload) -> int:
    return int(workload.deployment.spec.engine.parameters.get("parallel", _DEFAULT_PARALLEL))


def _switches(workload: Workload) -> Iterator[str]:
    if workload.deployment.spec.model.context_length is None:
        # The context is the model's, in all: shared, so that one request may use the whole of it.
        yield "--kv-unified"
    yield "--metrics"
    yield "--jinja"
    yield "--no-webui"
