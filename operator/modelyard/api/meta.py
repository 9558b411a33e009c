"""Names that every part of Modelyard shares: API group, labels, conditions and the base of all models."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

GROUP = "modelyard.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

FIELD_MANAGER = "modelyard"
"""Owner of the fields that Modelyard applies (server-side apply)."""

LABEL_DEPLOYMENT = f"{GROUP}/deployment"
"""On every child and pod: the name of the LLMDeployment it belongs to. It is the pods' selector."""
LABEL_ACCELERATOR = f"{GROUP}/accelerator"
"""On pods: the AcceleratorClass they run on."""
LABEL_VARIANT = f"{GROUP}/variant"
"""On child Deployments, LeaderWorkerSets and pods: which way of running the model they are (class, count, nodes, on
demand or spot)."""
COMPONENT_LABEL = "app.kubernetes.io/component"
COMPONENT_ENGINE = "engine"
"""On every child and pod that answers requests."""
COMPONENT_WORKER = "engine-worker"
"""On the pods of a group that answer no requests themselves: all but its leader."""
ANNOTATION_DEADLINE = f"{GROUP}/progress-deadline-seconds"
"""On child LeaderWorkerSets: what `progressDeadlineSeconds` is to a Deployment."""
LABEL_ACTIVE = f"{GROUP}/active"
"""On the operator's own pod: "true" while it holds the Lease. The Service of the ADS server selects it."""
QUEUE_LABELS = ("kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class")
"""Labels by which Kueue knows the queue of a workload and its place there. Those of an LLMDeployment are passed on to
its child Deployments and pods (https://kueue.sigs.k8s.io/docs/tasks/run/deployment/)."""
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_BY = "modelyard"

DnsLabel = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
DnsSubdomain = Annotated[
    str,
    StringConstraints(
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", max_length=253
    ),
]
LabelKey = Annotated[
    str,
    StringConstraints(
        pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
        min_length=1,
        max_length=317,
    ),
]
"""A label or taint key: an optional DNS prefix of 253 characters, a slash and a name of 63."""
LabelValue = Annotated[
    str, StringConstraints(pattern=r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$", max_length=63)
]
ModelName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$", min_length=1, max_length=128)
]
"""A model name as OpenAI clients send it."""


class ApiModel(BaseModel):
    """Base of all kinds: camelCase on the wire, immutable, tolerant of fields of other versions."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")

    RULES: ClassVar[tuple["Rule[Any]", ...]] = ()
    """Cross-field rules of this model, enforced by the API server and by `modelyard.api.validation`."""


M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Rule(Generic[M]):
    """A cross-field rule, said once in CEL for the API server and once in Python for offline checks."""

    name: str
    """Stable name; each rule has one accepting and one rejecting test under it."""
    cel: str
    message: str
    """Names the field and the remedy."""
    holds: Callable[[M], bool]
    field_path: str | None = None
    """CEL `fieldPath`, relative to the model that the rule stands on."""


class ObjectMeta(ApiModel):
    """The parts of `metadata` that Modelyard reads."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    labels: Mapping[str, str] = Field(default_factory=dict)
    annotations: Mapping[str, str] = Field(default_factory=dict)


class Condition(ApiModel):
    """A standard Kubernetes condition."""

    type: Annotated[str, StringConstraints(max_length=316)]
    status: Literal["True", "False", "Unknown"]
    reason: Annotated[str, StringConstraints(max_length=1024)]
    message: Annotated[str, StringConstraints(max_length=32768)] = ""
    observed_generation: Annotated[int, Field(ge=0)] = 0
    last_transition_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """RFC 3339, as the API server requires: it refuses an empty one."""


UNOBSERVED = -1
"""`status.observedGeneration` of an object that the operator has not looked at, as the API server fills it in. Without
it, whoever waits for an object after applying it (kstatus: Flux, kpt) would take one without a status for done."""


def _since_nothing(value: Any) -> Any:
    """Return the generation that was looked at; 0 for none."""
    return 0 if value == UNOBSERVED else value


class Status(ApiModel):
    """What every kind's status begins with."""

    REPORTED: ClassVar[bool] = True
    """Whether the operator writes it."""

    observed_generation: Annotated[int, Field(ge=UNOBSERVED), BeforeValidator(_since_nothing)] = 0
    conditions: Annotated[
        tuple[Condition, ...],
        Field(
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = ()


class SecretKey(ApiModel):
    """A key of a Secret in the object's own namespace."""

    name: DnsSubdomain
    key: Annotated[str, StringConstraints(pattern=r"^[-._A-Za-z0-9]+$", min_length=1, max_length=253)]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a spec that the schema accepts cannot be honoured as things are. Whatever already runs is left alone.

    It becomes a condition, so it is a value and no exception.
    """

    reason: str
    """Stable reason of the condition."""
    message: str
    """One sentence that names the field and the remedy."""


def child_name(deployment: str, variant: str) -> str:
    """Return the name of the child Deployment that runs a variant of an LLMDeployment."""
    return f"{deployment}-{variant}"


def split_key(key: str) -> tuple[str, str]:
    """Return namespace and name of `namespace/name`."""
    namespace, _, name = key.partition("/")
    return namespace, name


def wire(model: BaseModel) -> dict[str, Any]:
    """Return the model as JSON data with camelCase names and without absent fields."""
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)
