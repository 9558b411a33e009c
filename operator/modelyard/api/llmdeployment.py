"""`LLMDeployment`: one model on one engine, on one or more kinds of accelerator."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from modelyard.api.engines import ENGINE_PARAMETERS, EngineName
from modelyard.api.meta import (
    ApiModel,
    DnsSubdomain,
    ModelName,
    ObjectMeta,
    Rule,
    Status,
)
from modelyard.api.modelprofile import ModelProfile
from modelyard.api.picker import EndpointPicker
from modelyard.api.placement import Placement
from modelyard.api.quantities import Duration, Numbers, Price, parse_duration
from modelyard.api.scaling import Scaling

SOURCE_PATTERN = (
    r"^(hf://[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*(:[A-Za-z0-9][A-Za-z0-9._-]*)?(@[A-Za-z0-9][A-Za-z0-9._-]*)?"
    r"|pvc://[a-z0-9]([-a-z0-9]*[a-z0-9])?(/[A-Za-z0-9_][A-Za-z0-9._-]*)*)$"
)
"""`hf://organisation/repository[:file tag][@revision]` or `pvc://claim[/folder...]`.

No path may climb (`..`), and nothing here ever reaches a shell."""

NAME_LIMIT = 46
"""Characters in the name of an LLMDeployment.

Child Deployments add `-<5 characters>`, their pods `-<10 characters>`, and a label value holds 63 characters."""

SPANNING_NAME_LIMIT = 42
"""The same where replicas span nodes.

A LeaderWorkerSet adds `-<5 characters>`, the StatefulSet of a group's workers `-<up to 3 digits>`, and that one's
revision, a label of its pods, `-<10 characters>` (https://github.com/kubernetes/kubernetes/issues/64023)."""

ModelSource = Annotated[str, StringConstraints(pattern=SOURCE_PATTERN, max_length=256)]


class TokenSecret(ApiModel):
    """A key of a Secret in the deployment's own namespace that holds the model hub's token."""

    name: DnsSubdomain
    key: Annotated[str, StringConstraints(pattern=r"^[-._A-Za-z0-9]+$", min_length=1, max_length=253)] = (
        "token"
    )


class Adapter(ApiModel):
    """A LoRA adapter, served as a model of its own name."""

    name: ModelName
    source: ModelSource


class Model(ApiModel):
    """What is served."""

    source: ModelSource = Field(
        description="hf://organisation/repository[:tag][@revision] or pvc://claim[/folder]."
    )
    name: ModelName | None = Field(
        default=None, description="Name that clients send as `model`. Default: the object's name."
    )
    context_length: Annotated[int, Field(ge=128, le=10_000_000)] | None = Field(
        default=None, description="Longest prompt plus answer, in tokens. Default: what the model allows."
    )
    quantization: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$", max_length=32)] | None = (
        Field(
            default=None,
            description="How the weights are quantised, in the engine's own words (fp8, awq, Q4_K_M).",
        )
    )
    adapters: Annotated[
        tuple[Adapter, ...],
        Field(
            max_length=32,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
    token_secret: TokenSecret | None = Field(default=None, description="Token for a gated model on the hub.")
    profile: ModelProfile | None = Field(
        default=None,
        description="The model's architecture, where neither the catalogue nor the hub can be asked.",
    )

    RULES: ClassVar[tuple[Rule["Model"], ...]] = (
        Rule(
            name="token-needs-hub",
            cel="!has(self.tokenSecret) || self.source.startsWith('hf://')",
            message="tokenSecret is only used with an hf:// source: remove it, or name a model on the hub",
            holds=lambda model: model.token_secret is None or model.source.startswith("hf://"),
            field_path=".tokenSecret",
        ),
    )


class Engine(ApiModel):
    """What serves it."""

    name: EngineName = Field(default="vLLM")
    version: (
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)] | None
    ) = Field(
        default=None,
        description="A version that the operator's configuration has an image for. Default: its newest.",
    )
    parameters: Annotated[
        dict[str, Annotated[str, StringConstraints(max_length=256)]],
        Field(
            max_length=max(len(allowed) for allowed in ENGINE_PARAMETERS.values()),
            description="Engine flags without the leading dashes; an empty value is a bare flag.",
        ),
    ] = Field(default_factory=dict)

    RULES: ClassVar[tuple[Rule["Engine"], ...]] = tuple(
        Rule(
            name=f"parameters-{name.lower()}",
            cel=f"self.name != '{name}' || self.parameters.all(key, key in {list(allowed)!r})",
            message=f"parameters may only name these flags of {name}: {', '.join(allowed)}",
            holds=lambda engine, name=name, allowed=allowed: (  # type: ignore[misc]
                engine.name != name or all(key in allowed for key in engine.parameters)
            ),
            field_path=".parameters",
        )
        for name, allowed in ENGINE_PARAMETERS.items()
    )


class Load(ApiModel):
    """What clients are expected to send."""

    requests_per_minute: Annotated[int, Field(ge=0, le=10_000_000)] | None = Field(
        default=None, description="Mean requests per minute. `modelyard plan` sizes and prices for it."
    )
    input_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = Field(
        default=None, description="Mean tokens of a prompt, until traffic is measured. Default: 1155."
    )
    output_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="Mean tokens of an answer, until traffic is measured. Default: 211."
    )


class Rollout(ApiModel):
    """How pods come and go."""

    strategy: Literal["Surge", "Drain"] = Field(
        default="Surge",
        description="Surge starts a new pod before an old one leaves; Drain frees its accelerators first.",
    )
    start_timeout: Duration = Field(
        default="30m", description="How long a pod may take to download, load and become Ready (1m to 6h)."
    )
    drain_timeout: Duration = Field(
        default="2m", description="How long a leaving pod may finish its requests (10s to 1h)."
    )

    RULES: ClassVar[tuple[Rule["Rollout"], ...]] = (
        Rule(
            name="start-timeout-bounds",
            cel="duration(self.startTimeout) >= duration('1m') "
            "&& duration(self.startTimeout) <= duration('6h')",
            message="startTimeout must be from 1m to 6h",
            holds=lambda rollout: 60 <= parse_duration(rollout.start_timeout) <= 6 * 3600,
            field_path=".startTimeout",
        ),
        Rule(
            name="drain-timeout-bounds",
            cel="duration(self.drainTimeout) >= duration('10s') "
            "&& duration(self.drainTimeout) <= duration('1h')",
            message="drainTimeout must be from 10s to 1h",
            holds=lambda rollout: 10 <= parse_duration(rollout.drain_timeout) <= 3600,
            field_path=".drainTimeout",
        ),
    )


class LLMDeploymentSpec(ApiModel):
    """What the user asks for."""

    model: Model
    engine: Engine = Field(default_factory=Engine)
    placement: Placement = Field(default_factory=Placement)
    replicas: Annotated[int, Field(ge=0, le=1000)] | None = Field(
        default=None, description="A fixed number of replicas; `kubectl scale` sets it."
    )
    scaling: Scaling | None = Field(default=None, description="Let Modelyard decide the number of replicas.")
    load: Load | None = Field(default=None, description="What clients are expected to send.")
    load_balancing: Literal["LeastRequests", "PrefixAffinity"] = Field(
        default="LeastRequests",
        description="Which replica a request goes to. LeastRequests: to the least busy one. PrefixAffinity: requests "
        "with the same prompt_cache_key or X-Session-ID, or else the same beginning, to the same one, unless it is "
        "busier than the others.",
    )
    endpoint_picker: EndpointPicker | None = Field(
        default=None, description="Let a service of your own choose the replica of each request."
    )
    rollout: Rollout = Field(default_factory=Rollout)
    suspend: bool = Field(default=False, description="True: no pods, and requests are refused with 503.")

    RULES: ClassVar[tuple[Rule["LLMDeploymentSpec"], ...]] = (
        Rule(
            name="replicas-or-scaling",
            cel="has(self.replicas) != has(self.scaling)",
            message="set exactly one of replicas (a fixed size) and scaling (Modelyard decides)",
            holds=lambda spec: (spec.replicas is None) != (spec.scaling is None),
        ),
        Rule(
            name="adapters-need-vllm",
            cel="!has(self.model.adapters) || size(self.model.adapters) == 0 || self.engine.name == 'vLLM'",
            message="model.adapters needs engine vLLM: change engine.name, or merge the adapters into the "
            "model",
            holds=lambda spec: not spec.model.adapters or spec.engine.name == "vLLM",
            field_path=".model.adapters",
        ),
        Rule(
            name="nodes-need-vllm",
            cel="!has(self.placement.accelerators) || self.engine.name == 'vLLM' "
            "|| self.placement.accelerators.all(option, !has(option.nodes) || option.nodes == 1)",
            message="placement.accelerators[].nodes above 1 needs engine vLLM: change engine.name, or set nodes "
            "to 1",
            holds=lambda spec: spec.engine.name == "vLLM" or not spec.spans_nodes,
            field_path=".placement.accelerators",
        ),
    )

    @property
    def spans_nodes(self) -> bool:
        """Whether replicas on some class span several nodes."""
        return any(option.nodes > 1 for option in self.placement.accelerators)


class VariantStatus(ApiModel):
    """One of the ways in which the model runs."""

    class_name: Annotated[str, Field(alias="class", max_length=253)]
    count: Annotated[int, Field(description="Accelerators of one replica on one node.")]
    nodes: int | None = Field(default=None, description="Nodes of one replica, where it spans several.")
    purchase: Literal["OnDemand", "Spot"] = "OnDemand"
    replicas: int = 0
    ready_replicas: int = 0
    deployment: Annotated[str, Field(max_length=253)] = Field(
        default="",
        description="Name of the child Deployment, or LeaderWorkerSet where a replica spans nodes.",
    )


class PlacementStatus(ApiModel):
    """The accelerators chosen. `class` and `count` are those of most replicas."""

    class_name: Annotated[str, Field(alias="class", max_length=253)]
    count: Annotated[int, Field(description="Accelerators of one replica on one node.")]
    nodes: int | None = Field(default=None, description="Nodes of one replica, where it spans several.")
    message: Annotated[str, StringConstraints(max_length=1024)] = ""
    variants: Annotated[
        tuple[VariantStatus, ...],
        Field(max_length=32, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = ()


class CostStatus(ApiModel):
    """What it costs now, on demand, in US dollars."""

    per_hour: Price
    per_million_tokens: Price | None = None


class ScalingEvent(ApiModel):
    """A past change of size."""

    time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    from_replicas: int
    to_replicas: int
    reason: Annotated[str, StringConstraints(max_length=64)]
    message: Annotated[str, StringConstraints(max_length=1024)] = ""


class ScalingStatus(ApiModel):
    """The decided size, and how it came about."""

    desired_replicas: int
    reason: Annotated[str, StringConstraints(max_length=64)]
    message: Annotated[str, StringConstraints(max_length=1024)] = ""
    numbers: Numbers | None = Field(
        default=None, description="What the size was worked out from; kept until size or reason change."
    )
    history: Annotated[
        tuple[ScalingEvent, ...], Field(max_length=20, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = ()


class GatewayStatus(ApiModel):
    """What the gateway knows the model as."""

    generation: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Raised at every scale to zero, so that a new request wakes the model again."
    )


class LLMDeploymentStatus(Status):
    """What is."""

    replicas: int = 0
    ready_replicas: int = 0
    selector: Annotated[str, StringConstraints(max_length=256)] = ""
    model: Annotated[str, StringConstraints(max_length=128)] = Field(
        default="", description="The name that clients send as `model`."
    )
    placement: PlacementStatus | None = None
    cost: CostStatus | None = None
    gateway: GatewayStatus | None = None
    scaling: ScalingStatus | None = None


class LLMDeployment(ApiModel):
    """One model on one engine, on one or more kinds of accelerator."""

    metadata: ObjectMeta
    spec: LLMDeploymentSpec
    status: LLMDeploymentStatus = Field(default_factory=LLMDeploymentStatus)

    RULES: ClassVar[tuple[Rule["LLMDeployment"], ...]] = (
        Rule(
            name="name-is-a-label",
            cel=f"self.metadata.name.size() <= {NAME_LIMIT} "
            "&& self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            message=f"metadata.name names a Service and pods: at most {NAME_LIMIT} characters, lower-case "
            "letters, digits and dashes, a letter first",
            holds=lambda deployment: _is_service_name(deployment.metadata.name),
        ),
        Rule(
            name="name-leaves-room-for-groups",
            cel=f"self.metadata.name.size() <= {SPANNING_NAME_LIMIT} || !has(self.spec.placement.accelerators) "
            "|| self.spec.placement.accelerators.all(option, !has(option.nodes) || option.nodes == 1)",
            message=f"metadata.name may have {SPANNING_NAME_LIMIT} characters where placement.accelerators[].nodes is "
            "above 1, because the pods of a group add theirs: choose a shorter name",
            holds=lambda deployment: (
                len(deployment.metadata.name) <= SPANNING_NAME_LIMIT or not deployment.spec.spans_nodes
            ),
        ),
    )

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def served_name(self) -> str:
        """The name that clients send as `model`."""
        return self.spec.model.name or self.metadata.name


def _is_service_name(name: str) -> bool:
    characters = set("abcdefghijklmnopqrstuvwxyz0123456789-")
    return 0 < len(name) <= NAME_LIMIT and set(name) <= characters and name[0].isalpha() and name[-1] != "-"
