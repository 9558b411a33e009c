"""Where an LLMRoute may send requests, and rules that send some of them elsewhere."""

from typing import Annotated, Any, ClassVar, Final

from pydantic import Field, StringConstraints

from modelyard.api.meta import ApiModel, DnsLabel, DnsSubdomain, ModelName, Rule
from modelyard.api.quantities import Quality

_OWN_HEADERS = (
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "upgrade",
    "x-api-key",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-request-id",
)
"""Headers that hold secrets, or that the gateway and those before it write themselves."""

_OWN_PREFIXES = ("x-envoy-", "x-gateway-", "x-modelyard-")
"""What the gateway takes away from clients' requests."""


class RouteTarget(ApiModel):
    """A deployment in the route's namespace or one of its adapters, or an LLMProvider's model (gateway's namespace)."""

    deployment: DnsLabel | None = Field(
        default=None, description="An LLMDeployment in the route's namespace."
    )
    adapter: ModelName | None = Field(
        default=None, description="One of the deployment's model.adapters. Absent: the model itself."
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
        Rule(
            name="adapter-of-deployment",
            cel="!has(self.adapter) || has(self.deployment)",
            message="an adapter is one of a deployment: state deployment too, or remove adapter",
            holds=lambda target: target.adapter is None or target.deployment is not None,
            field_path=".adapter",
        ),
    )


SOME_WEIGHT = "self.targets.exists(target, target.weight > 0)"
TARGETS_DIFFER = (
    "self.targets.all(a, self.targets.exists_one(b, has(a.deployment) "
    "? has(b.deployment) && a.deployment == b.deployment "
    "&& (has(a.adapter) ? has(b.adapter) && a.adapter == b.adapter : !has(b.adapter)) "
    ": has(b.provider) && has(a.provider) && a.provider == b.provider "
    "&& has(b.model) && has(a.model) && a.model == b.model))"
)


def some_weight(targets: tuple[RouteTarget, ...]) -> bool:
    """Return whether any target gets requests (`SOME_WEIGHT` in Python)."""
    return any(target.weight > 0 for target in targets)


def targets_differ(targets: tuple[RouteTarget, ...]) -> bool:
    """Return whether no target stands there twice (`TARGETS_DIFFER` in Python)."""
    names = {(target.deployment, target.adapter, target.provider, target.model) for target in targets}
    return len(names) == len(targets)


class HeaderMatch(ApiModel):
    """A header that a request must have."""

    name: Annotated[
        str, StringConstraints(pattern=r"^[A-Za-z0-9]([-_A-Za-z0-9]*[A-Za-z0-9])?$", max_length=64)
    ] = Field(description="Such as X-Tier; upper and lower case are the same.")
    value: Annotated[
        str, StringConstraints(pattern=r"^[!-~]([ -~]*[!-~])?$", min_length=1, max_length=128)
    ] = Field(description="The whole value, as it is.")

    RULES: ClassVar[tuple[Rule["HeaderMatch"], ...]] = (
        Rule(
            name="header-of-the-client",
            cel=f"!self.name.matches('(?i)^({'|'.join(_OWN_PREFIXES)})') "
            f"&& !self.name.matches('(?i)^({'|'.join(_OWN_HEADERS)})$')",
            message="this header is the gateway's own, or holds a secret: choose one that clients set, such as x-tier",
            holds=lambda match: (
                not match.name.lower().startswith(_OWN_PREFIXES) and match.name.lower() not in _OWN_HEADERS
            ),
            field_path=".name",
        ),
    )


class RuleMatch(ApiModel):
    """Which requests a rule takes: those of one of the tenants, with all of the headers."""

    tenants: (
        Annotated[
            tuple[DnsSubdomain, ...],
            Field(min_length=1, max_length=64),
        ]
        | None
    ) = Field(default=None, description="Names of LLMTenants. Absent: whoever calls.")
    headers: (
        Annotated[
            tuple[HeaderMatch, ...],
            Field(
                min_length=1,
                max_length=8,
                json_schema_extra={"x-kubernetes-list-type": "atomic"},
            ),
        ]
        | None
    ) = Field(default=None, description="Headers of the request, such as its tier or its task. Absent: any.")

    RULES: ClassVar[tuple[Rule["RuleMatch"], ...]] = (
        Rule(
            name="some-match",
            cel="has(self.tenants) || has(self.headers)",
            message="match needs tenants or headers: what every request should do belongs into the route's own targets",
            holds=lambda match: match.tenants is not None or match.headers is not None,
        ),
    )


TargetList = Annotated[
    tuple[RouteTarget, ...],
    Field(
        min_length=1,
        max_length=16,
        # The order counts, so one owner applies the whole list.
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    ),
]
"""Targets of a route, or of one of its rules."""

TARGET_RULES: Final[tuple[Rule[Any], ...]] = (
    Rule(
        name="some-weight",
        cel=SOME_WEIGHT,
        message="at least one of targets needs a weight above 0",
        holds=lambda owner: some_weight(owner.targets),
        field_path=".targets",
    ),
    Rule(
        name="targets-differ",
        cel=TARGETS_DIFFER,
        message="targets must differ: give one of them the weight of both",
        holds=lambda owner: targets_differ(owner.targets),
        field_path=".targets",
    ),
)
"""Of whatever has a field `targets`."""


class RouteRule(ApiModel):
    """Where some requests go instead of the route's own targets."""

    match: RuleMatch
    targets: TargetList

    RULES: ClassVar[tuple[Rule["RouteRule"], ...]] = TARGET_RULES
