"""`LLMRoute`: a model name that clients send, and the deployments and providers that may answer."""

from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from modelyard.api.meta import (
    ApiModel,
    DnsLabel,
    DnsSubdomain,
    ModelName,
    ObjectMeta,
    Rule,
    Status,
)
from modelyard.api.quantities import Duration, Quality, parse_duration


class RouteTarget(ApiModel):
    """A deployment in the route's own namespace, or a model of an LLMProvider in the gateway's namespace."""

    deployment: DnsLabel | None = Field(
        default=None, description="An LLMDeployment in the route's namespace."
    )
    provider: DnsSubdomain | None = Field(
        default=None, description="An LLMProvider in the gateway's namespace."
    )
    model: ModelName | None = Field(default=None, description="One of the provider's models.")
    weight: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=1, description="Share of the requests, relative to the other targets. 0: none."
    )
    quality: Quality | None = Field(
        default=None,
        description="From 0 to 1. Default for a provider: what the LLMProvider says of the model.",
    )

    RULES: ClassVar[tuple[Rule["RouteTarget"], ...]] = (
        Rule(
            name="deployment-or-provider",
            cel="has(self.deployment) ? !has(self.provider) && !has(self.model) "
            ": has(self.provider) && has(self.model)",
            message="a target is either deployment, or provider together with model",
            holds=lambda target: (
                target.provider is None and target.model is None
                if target.deployment is not None
                else target.provider is not None and target.model is not None
            ),
        ),
    )


class Timeouts(ApiModel):
    """Bounds on waiting."""

    hold: Duration = Field(
        default="10m", description="How long a request may wait for a sleeping or loading target (1s to 1h)."
    )
    first_token: Duration | None = Field(
        default=None,
        description="How long a target may take to begin a streamed answer, hold not included (1s to 1h). Then the "
        "next target is tried. Absent: as long as the whole answer.",
    )
    request: Duration = Field(
        default="10m",
        description="How long one answer may take, over all targets tried and hold not included (1s to 6h).",
    )

    RULES: ClassVar[tuple[Rule["Timeouts"], ...]] = (
        Rule(
            name="hold-bounds",
            cel="duration(self.hold) >= duration('1s') && duration(self.hold) <= duration('1h')",
            message="hold must be from 1s to 1h",
            holds=lambda timeouts: 1 <= parse_duration(timeouts.hold) <= 3600,
            field_path=".hold",
        ),
        Rule(
            name="first-token-bounds",
            cel="!has(self.firstToken) || (duration(self.firstToken) >= duration('1s') "
            "&& duration(self.firstToken) <= duration('1h'))",
            message="firstToken must be from 1s to 1h",
            holds=lambda timeouts: (
                timeouts.first_token is None or 1 <= parse_duration(timeouts.first_token) <= 3600
            ),
            field_path=".firstToken",
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
    policy: Literal["Weighted", "Priority"] = Field(
        default="Weighted",
        description="Which target a request goes to first. Weighted: by weight. Priority: the first of the list. "
        "Where one fails, the next in the list is tried.",
    )
    min_quality: Quality | None = Field(
        default=None,
        description="Targets below it, and those whose quality nobody states, are never chosen.",
    )
    data_policy: Literal["Any", "Sovereign"] = Field(
        default="Any", description="Sovereign: no request ever goes to a provider."
    )
    targets: Annotated[
        tuple[RouteTarget, ...],
        Field(
            min_length=1,
            max_length=16,
            # The order counts, so one owner applies the whole list.
            json_schema_extra={"x-kubernetes-list-type": "atomic"},
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
        Rule(
            name="targets-differ",
            cel="self.targets.all(a, self.targets.exists_one(b, has(a.deployment) "
            "? has(b.deployment) && a.deployment == b.deployment "
            ": has(b.provider) && has(a.provider) && a.provider == b.provider "
            "&& has(b.model) && has(a.model) && a.model == b.model))",
            message="targets must differ: give one of them the weight of both",
            holds=lambda spec: (
                len({(target.deployment, target.provider, target.model) for target in spec.targets})
                == len(spec.targets)
            ),
            field_path=".targets",
        ),
        Rule(
            name="priority-without-weights",
            cel="self.policy != 'Priority' || self.targets.all(target, target.weight <= 1)",
            message="under policy Priority the order of targets decides: leave weight out, or set it to 0 to take a "
            "target out of use",
            holds=lambda spec: (
                spec.policy != "Priority" or all(target.weight <= 1 for target in spec.targets)
            ),
            field_path=".targets",
        ),
        Rule(
            name="sovereign-without-providers",
            cel="self.dataPolicy != 'Sovereign' || self.targets.all(target, !has(target.provider))",
            message="dataPolicy Sovereign lets no request leave the cluster: remove the targets with provider",
            holds=lambda spec: (
                spec.data_policy != "Sovereign" or all(target.provider is None for target in spec.targets)
            ),
            field_path=".targets",
        ),
        Rule(
            name="quality-is-stated",
            cel="!has(self.minQuality) "
            "|| self.targets.all(target, !has(target.deployment) || has(target.quality))",
            message="minQuality needs the quality of each target that is a deployment",
            holds=lambda spec: (
                spec.min_quality is None
                or all(target.deployment is None or target.quality is not None for target in spec.targets)
            ),
            field_path=".targets",
        ),
        Rule(
            name="some-quality",
            cel="!has(self.minQuality) || self.targets.exists(target, target.weight > 0 "
            "&& (!has(target.quality) || double(target.quality) >= double(self.minQuality)))",
            message="minQuality leaves no target: at least one with a weight above 0 must reach it",
            holds=lambda spec: (
                spec.min_quality is None
                or any(
                    target.weight > 0
                    and (target.quality is None or Decimal(target.quality) >= Decimal(spec.min_quality))
                    for target in spec.targets
                )
            ),
            field_path=".minQuality",
        ),
    )


class LLMRouteStatus(Status):
    """What is."""


class LLMRoute(ApiModel):
    """A model name that clients send, and the deployments and providers that may answer."""

    metadata: ObjectMeta
    spec: LLMRouteSpec
    status: LLMRouteStatus = Field(default_factory=LLMRouteStatus)

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.metadata.namespace}/{self.metadata.name}"
