"""`AcceleratorClass`: a kind of GPU, or CPU only, that the platform team offers."""

from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from modelyard.api.meta import (
    ApiModel,
    DnsSubdomain,
    LabelKey,
    LabelValue,
    ObjectMeta,
    Rule,
    Status,
)
from modelyard.api.quantities import Duration, Price, Quantity, parse_duration


class Toleration(ApiModel):
    """A Kubernetes toleration."""

    key: LabelKey | None = None
    operator: Literal["Exists", "Equal"] = "Exists"
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None

    RULES: ClassVar[tuple[Rule["Toleration"], ...]] = (
        Rule(
            name="toleration-value",
            cel="self.operator == 'Exists' ? !has(self.value) : has(self.key)",
            message="operator Exists takes no value, and operator Equal needs a key",
            holds=lambda item: item.value is None if item.operator == "Exists" else item.key is not None,
        ),
    )


class Requests(ApiModel):
    """What a pod asks for beside each accelerator (or, without accelerator, in all)."""

    cpu: Quantity
    memory: Quantity


class Throughput(ApiModel):
    """Dense peak of one accelerator, in TFLOP/s (vendor's data sheet)."""

    bf16: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    fp8: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    int8: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


class AcceleratorPrice(ApiModel):
    """US dollars per accelerator and hour."""

    on_demand: Price
    spot: Price | None = None

    RULES: ClassVar[tuple[Rule["AcceleratorPrice"], ...]] = (
        Rule(
            name="spot-not-above-on-demand",
            cel="!has(self.spot) || double(self.spot) <= double(self.onDemand)",
            message="spot must not be above onDemand: check the two prices",
            holds=lambda price: price.spot is None or Decimal(price.spot) <= Decimal(price.on_demand),
            field_path=".spot",
        ),
    )


class Spot(ApiModel):
    """Which of the class's nodes are spot capacity: cheaper, and taken away at short notice."""

    node_selector: Annotated[dict[LabelKey, LabelValue], Field(min_length=1, max_length=16)] = Field(
        description="Labels of spot nodes, such as karpenter.sh/capacity-type: spot. On-demand pods avoid them."
    )
    tolerations: Annotated[
        tuple[Toleration, ...], Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = ()


class AcceleratorClassSpec(ApiModel):
    """What the platform team offers."""

    resource_name: (
        Annotated[
            str,
            StringConstraints(
                pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9][-A-Za-z0-9_.]*$", max_length=317
            ),
        ]
        | None
    ) = Field(default=None, description="Extended resource, such as nvidia.com/gpu. Absent: CPU only.")
    node_selector: Annotated[dict[LabelKey, LabelValue], Field(max_length=16)] = Field(default_factory=dict)
    tolerations: Annotated[
        tuple[Toleration, ...], Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = ()
    runtime_class_name: DnsSubdomain | None = None
    requests: Requests | None = Field(
        default=None, description="CPU and memory asked for beside each accelerator."
    )
    memory: Quantity | None = Field(default=None, description="Memory of one accelerator.")
    memory_bandwidth: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="GB/s of one accelerator."
    )
    throughput: Throughput | None = None
    price: AcceleratorPrice | None = None
    billing: Literal["PerHour", "Committed"] = "PerHour"
    available: Annotated[int, Field(ge=0, le=1_000_000)] | None = Field(
        default=None, description="How many accelerators can be had in all, with node autoscaling."
    )
    per_node: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None,
        description="Accelerators of one node. Default: as many as the largest node there is has.",
    )
    provision_time: Duration | None = Field(default=None, description="How long a new node takes (1s to 6h).")
    spot: Spot | None = Field(default=None, description="Absent: the class has no spot capacity.")

    RULES: ClassVar[tuple[Rule["AcceleratorClassSpec"], ...]] = (
        Rule(
            name="cpu-needs-requests",
            cel="has(self.resourceName) || has(self.requests)",
            message="a class without resourceName is CPU only and needs requests.cpu and requests.memory",
            holds=lambda spec: spec.resource_name is not None or spec.requests is not None,
            field_path=".requests",
        ),
        Rule(
            name="provision-time-bounds",
            cel="!has(self.provisionTime) || (duration(self.provisionTime) >= duration('1s') "
            "&& duration(self.provisionTime) <= duration('6h'))",
            message="provisionTime must be from 1s to 6h",
            holds=lambda spec: (
                spec.provision_time is None or 1 <= parse_duration(spec.provision_time) <= 6 * 3600
            ),
            field_path=".provisionTime",
        ),
    )


class AcceleratorClassStatus(Status):
    """What is."""

    REPORTED: ClassVar[bool] = False


class AcceleratorClass(ApiModel):
    """A kind of GPU, or CPU only, that the platform team offers."""

    metadata: ObjectMeta
    spec: AcceleratorClassSpec
    status: AcceleratorClassStatus = Field(default_factory=AcceleratorClassStatus)
