"""`LLMRoute`: a model name that clients send, and the deployments that may answer."""

from typing import Annotated, ClassVar

from pydantic import Field

from modelyard.api.meta import ApiModel, Condition, DnsLabel, ModelName, ObjectMeta, Rule
from modelyard.api.quantities import Duration, parse_duration


class RouteTarget(ApiModel):
    """A deployment in the route's own namespace."""

    deployment: DnsLabel
    weight: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=1, description="Share of the requests, relative to the other targets. 0: none."
    )


class Timeouts(ApiModel):
    """Bounds on waiting."""

    hold: Duration = Field(
        default="10m", description="How long a request may wait for a sleeping or loading target (1s to 1h)."
    )
    request: Duration = Field(default="10m", description="How long one answer may take (1s to 6h).")

    RULES: ClassVar[tuple[Rule["Timeouts"], ...]] = (
        Rule(
            name="hold-bounds",
            cel="duration(self.hold) >= duration('1s') && duration(self.hold) <= duration('1h')",
            message="hold must be from 1s to 1h",
            holds=lambda timeouts: 1 <= parse_duration(timeouts.hold) <= 3600,
            field_path=".hold",
        ),
        Rule(
            name="request-bounds",
            cel="duration(self.request) >= duration('1s') && duration(self.request) <= duration('6h')",
            message="request must be from 1s to 6h",
            holds=lambda timeouts: 1 <= parse_duration(timeouts.request) <= 6 * 3600,
            field_path=".request",
        ),
    )


class LLMRouteSpec(ApiModel):
    """What the user asks for."""

    model: ModelName = Field(description="The name that clients send as `model`.")
    targets: Annotated[
        tuple[RouteTarget, ...],
        Field(
            min_length=1,
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["deployment"]},
        ),
    ]
    timeouts: Timeouts = Field(default_factory=Timeouts)

    RULES: ClassVar[tuple[Rule["LLMRouteSpec"], ...]] = (
        Rule(
            name="some-weight",
            cel="self.targets.exists(target, target.weight > 0)",
            message="at least one of targets needs a weight above 0",
            holds=lambda spec: any(target.weight > 0 for target in spec.targets),
            field_path=".targets",
        ),
    )


class LLMRouteStatus(ApiModel):
    """What is."""

    observed_generation: Annotated[int, Field(ge=0)] = 0
    conditions: Annotated[
        tuple[Condition, ...],
        Field(
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = ()


class LLMRoute(ApiModel):
    """A model name that clients send, and the deployments that may answer."""

    metadata: ObjectMeta
    spec: LLMRouteSpec
    status: LLMRouteStatus = Field(default_factory=LLMRouteStatus)

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.metadata.namespace}/{self.metadata.name}"
