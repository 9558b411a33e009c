"""`LLMRoute`: a model name that clients send, and the deployments and providers that may answer."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from modelyard.api.meta import ApiModel, ModelName, ObjectMeta, Rule, Status
from modelyard.api.quantities import Duration, Quality, parse_duration
from modelyard.api.routechoice import ChoiceStatus
from modelyard.api.routetargets import TARGET_RULES, RouteRule, RouteTarget, TargetList


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
    policy: Literal["Weighted", "Priority", "LowestCost"] = Field(
        default="Weighted",
        description="Which target a request goes to first. Weighted: by weight. Priority: the first of the list. "
        "LowestCost: the one that costs least at the load that there is. Where one fails, the next in the list is "
        "tried.",
    )
    spill: bool | None = Field(
        default=None,
        description="Whether requests that a deployment has no serving replicas for go to another target meanwhile "
        "(true, also where absent), or wait.",
    )
    min_quality: Quality | None = Field(
        default=None,
        description="Targets below it, and those whose quality nobody states, are never chosen.",
    )
    data_policy: Literal["Any", "Sovereign"] = Field(
        default="Any", description="Sovereign: no request ever goes to a provider."
    )
    targets: TargetList
    rules: (
        Annotated[
            tuple[RouteRule, ...],
            Field(
                min_length=1,
                max_length=16,
                # The first match decides, so one owner applies the whole list.
                json_schema_extra={"x-kubernetes-list-type": "atomic"},
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="Where requests of some tenants, or with some headers, go instead. The first rule that a request "
        "matches decides; targets where none does.",
    )
    timeouts: Timeouts = Field(default_factory=Timeouts)

    RULES: ClassVar[tuple[Rule["LLMRouteSpec"], ...]] = (
        *TARGET_RULES,
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
            name="lowest-cost-without-weights",
            cel="self.policy != 'LowestCost' || self.targets.all(target, target.weight <= 1)",
            message="under policy LowestCost cost decides: leave weight out, or set it to 0 to take a target out of "
            "use",
            holds=lambda spec: (
                spec.policy != "LowestCost" or all(target.weight <= 1 for target in spec.targets)
            ),
            field_path=".targets",
        ),
        Rule(
            name="spill-needs-targets",
            cel="!has(self.spill) || size(self.targets) > 1",
            message="spill needs a second target to spill to: add one to targets, or leave spill out",
            holds=lambda spec: spec.spill is None or len(spec.targets) > 1,
            field_path=".spill",
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
            name="lowest-cost-without-adapters",
            cel="self.policy != 'LowestCost' || self.targets.all(target, !has(target.adapter))",
            message="policy LowestCost does not choose among adapters: use policy Priority or Weighted, or remove "
            "adapter",
            holds=lambda spec: (
                spec.policy != "LowestCost" or all(target.adapter is None for target in spec.targets)
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
        Rule(
            name="rules-priority-without-weights",
            cel="self.policy != 'Priority' || !has(self.rules) "
            "|| self.rules.all(rule, rule.targets.all(target, target.weight <= 1))",
            message="under policy Priority the order of targets decides, in rules too: leave weight out, or set it to "
            "0 to take a target out of use",
            holds=lambda spec: (
                spec.policy != "Priority" or all(target.weight <= 1 for target in _rule_targets(spec))
            ),
            field_path=".rules",
        ),
        Rule(
            name="rules-lowest-cost-without-weights",
            cel="self.policy != 'LowestCost' || !has(self.rules) "
            "|| self.rules.all(rule, rule.targets.all(target, target.weight <= 1))",
            message="under policy LowestCost cost decides, in rules too: leave weight out, or set it to 0 to take a "
            "target out of use",
            holds=lambda spec: (
                spec.policy != "LowestCost" or all(target.weight <= 1 for target in _rule_targets(spec))
            ),
            field_path=".rules",
        ),
        Rule(
            name="rules-sovereign-without-providers",
            cel="self.dataPolicy != 'Sovereign' || !has(self.rules) "
            "|| self.rules.all(rule, rule.targets.all(target, !has(target.provider)))",
            message="dataPolicy Sovereign lets no request leave the cluster, whatever rule it matches: remove the "
            "targets with provider",
            holds=lambda spec: (
                spec.data_policy != "Sovereign"
                or all(target.provider is None for target in _rule_targets(spec))
            ),
            field_path=".rules",
        ),
        Rule(
            name="rules-quality-is-stated",
            cel="!has(self.minQuality) || !has(self.rules) || self.rules.all(rule, "
            "rule.targets.all(target, !has(target.deployment) || has(target.quality)))",
            message="minQuality holds in rules too, and needs the quality of each target that is a deployment",
            holds=lambda spec: (
                spec.min_quality is None
                or all(
                    target.deployment is None or target.quality is not None for target in _rule_targets(spec)
                )
            ),
            field_path=".rules",
        ),
        Rule(
            name="rules-some-quality",
            cel="!has(self.minQuality) || !has(self.rules) || self.rules.all(rule, "
            "rule.targets.exists(target, target.weight > 0 "
            "&& (!has(target.quality) || double(target.quality) >= double(self.minQuality))))",
            message="minQuality leaves a rule without a target: at least one with a weight above 0 must reach it",
            holds=lambda spec: (
                spec.min_quality is None
                or all(
                    any(
                        target.weight > 0
                        and (target.quality is None or Decimal(target.quality) >= Decimal(spec.min_quality))
                        for target in rule.targets
                    )
                    for rule in spec.rules or ()
                )
            ),
            field_path=".rules",
        ),
    )


def _rule_targets(spec: LLMRouteSpec) -> Iterator[RouteTarget]:
    for rule in spec.rules or ():
        yield from rule.targets


class LLMRouteStatus(Status):
    """What is."""

    choice: ChoiceStatus | None = None
    spill_percent: Annotated[int, Field(ge=0, le=100)] | None = Field(
        default=None,
        description="Share of the requests that go elsewhere than they should, because replicas are missing.",
    )


class LLMRoute(ApiModel):
    """A model name that clients send, and the deployments and providers that may answer."""

    metadata: ObjectMeta
    spec: LLMRouteSpec
    status: LLMRouteStatus = Field(default_factory=LLMRouteStatus)

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.metadata.namespace}/{self.metadata.name}"
