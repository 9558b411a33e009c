"""Accepting and rejecting manifests of each cross-field rule of LLMRoutes."""

from typing import Final

from tests.apiserver.manifests import ABSENT, BASES
from tests.apiserver.rulecase import RuleCase, make_case, make_range

_ROUTE, _RULED_ROUTE, _FULL_ROUTE, _ = BASES["LLMRoute"]


ROUTE_RULES: Final[tuple[RuleCase, ...]] = (
    make_range("Timeouts.hold-bounds", _ROUTE, "spec.timeouts.hold", ("1s", "1h"), ("0s", "1h1s")),
    make_range("Timeouts.request-bounds", _ROUTE, "spec.timeouts.request", ("1s", "6h"), ("0s", "6h1s")),
    make_case(
        "LLMRouteSpec.some-weight",
        _ROUTE,
        "spec.targets",
        "at least one of targets needs a weight above 0",
        accepted=({"spec.targets.0.weight": 0, "spec.targets.1.weight": 1},),
        refused=({"spec.targets.0.weight": 0, "spec.targets.1.weight": 0},),
    ),
    make_range(
        "Timeouts.first-token-bounds", _FULL_ROUTE, "spec.timeouts.firstToken", ("1s", "1h"), ("0s", "1h1s")
    ),
    make_case(
        "RouteTarget.deployment-or-provider",
        _ROUTE,
        "spec.targets[0]",
        "a target is either deployment, or provider together with model",
        accepted=({}, {"spec.targets.0": {"provider": "openai", "model": "small"}}),
        refused=(
            {"spec.targets.0.provider": "openai", "spec.targets.0.model": "small"},
            {"spec.targets.0.model": "small"},
            {"spec.targets.0": {"provider": "openai"}},
            {"spec.targets.0": {"model": "small"}},
            {"spec.targets.0": {}},
        ),
    ),
    make_case(
        "RouteTarget.adapter-of-deployment",
        _ROUTE,
        "spec.targets[0].adapter",
        "an adapter is one of a deployment",
        accepted=({"spec.targets.0.adapter": "org/lora"},),
        refused=({"spec.targets.0": {"provider": "openai", "model": "small", "adapter": "org/lora"}},),
    ),
    make_case(
        "LLMRouteSpec.lowest-cost-without-adapters",
        _ROUTE,
        "spec.targets",
        "policy LowestCost does not choose among adapters",
        accepted=({"spec.targets.0.adapter": "org/lora"}, {"spec.policy": "LowestCost"}),
        refused=({"spec.policy": "LowestCost", "spec.targets.0.adapter": "org/lora"},),
    ),
    make_case(
        "LLMRouteSpec.targets-differ",
        _FULL_ROUTE,
        "spec.targets",
        "targets must differ",
        accepted=(
            {},
            {"spec.targets.1": {"provider": "openai", "model": "large"}},
            {"spec.targets.1": {"provider": "other", "model": "small"}},
            {"spec.targets.0": {"deployment": "first", "adapter": "lora", "quality": "1"}},
        ),
        refused=(
            {"spec.targets.1": {"provider": "openai", "model": "small", "quality": "0.5"}},
            {"spec.targets.0": {"deployment": "first", "weight": 3, "quality": "1"}},
        ),
    ),
    make_case(
        "LLMRouteSpec.priority-without-weights",
        _ROUTE,
        "spec.targets",
        "under policy Priority the order of targets decides",
        accepted=(
            {"spec.policy": "Priority"},
            {"spec.policy": "Priority", "spec.targets.1.weight": 0},
            {"spec.targets.0.weight": 9},
        ),
        refused=({"spec.policy": "Priority", "spec.targets.0.weight": 2},),
    ),
    make_case(
        "LLMRouteSpec.lowest-cost-without-weights",
        _ROUTE,
        "spec.targets",
        "under policy LowestCost cost decides",
        accepted=(
            {"spec.policy": "LowestCost"},
            {"spec.policy": "LowestCost", "spec.targets.1.weight": 0},
        ),
        refused=({"spec.policy": "LowestCost", "spec.targets.0.weight": 2},),
    ),
    make_case(
        "LLMRouteSpec.spill-needs-targets",
        _ROUTE,
        "spec.spill",
        "spill needs a second target",
        accepted=(
            {"spec.spill": False},
            {"spec.spill": True},
            {"spec.targets": [{"deployment": "first"}]},
        ),
        refused=(
            {"spec.spill": True, "spec.targets": [{"deployment": "first"}]},
            {"spec.spill": False, "spec.targets": [{"deployment": "first"}]},
        ),
    ),
    make_case(
        "LLMRouteSpec.sovereign-without-providers",
        _FULL_ROUTE,
        "spec.targets",
        "dataPolicy Sovereign lets no request leave the cluster",
        accepted=(
            {},
            {
                "spec.dataPolicy": "Sovereign",
                "spec.spill": ABSENT,
                "spec.targets": [{"deployment": "first", "quality": "1"}],
                "spec.rules": ABSENT,
            },
        ),
        refused=(
            {"spec.dataPolicy": "Sovereign"},
            # Also one that gets no requests: a weight is changed more lightly than a policy.
            {"spec.dataPolicy": "Sovereign", "spec.targets.0.weight": 0},
        ),
    ),
    make_case(
        "LLMRouteSpec.quality-is-stated",
        _FULL_ROUTE,
        "spec.targets",
        "minQuality needs the quality of each target that is a deployment",
        accepted=(
            {"spec.targets.0.quality": ABSENT},
            {"spec.minQuality": ABSENT, "spec.targets.1.quality": ABSENT},
        ),
        refused=({"spec.targets.1.quality": ABSENT},),
    ),
    make_case(
        "LLMRouteSpec.some-quality",
        _FULL_ROUTE,
        "spec.minQuality",
        "minQuality leaves no target",
        accepted=(
            {"spec.minQuality": "1"},
            {"spec.minQuality": "0.8", "spec.targets.1.quality": "0.7999"},
            {"spec.minQuality": "0.8", "spec.targets.1.quality": "0.1", "spec.targets.0.quality": ABSENT},
        ),
        refused=(
            {"spec.minQuality": "0.8001", "spec.targets.1.quality": "0.8"},
            {"spec.minQuality": "0.9", "spec.targets.1.weight": 0},
        ),
    ),
    make_case(
        "HeaderMatch.header-of-the-client",
        _RULED_ROUTE,
        "spec.rules[0].match.headers[0].name",
        "this header is the gateway's own, or holds a secret",
        accepted=(
            {"spec.rules.0.match.headers.0.name": "x-modelyard"},
            {"spec.rules.0.match.headers.0.name": "Host-Name"},
            {"spec.rules.0.match.headers.0.name": "OpenAI-Organization"},
        ),
        refused=tuple(
            {"spec.rules.0.match.headers.0.name": name}
            for name in (
                "X-Modelyard-Tenant",
                "x-modelyard-route",
                "x-envoy-original-path",
                "X-Gateway-Model-Name",
                "Authorization",
                "X-API-Key",
                "cookie",
                "Host",
                "content-length",
                "X-Forwarded-For",
            )
        ),
    ),
    make_case(
        "RuleMatch.some-match",
        _RULED_ROUTE,
        "spec.rules[0].match",
        "match needs tenants or headers",
        accepted=({"spec.rules.0.match.tenants": ABSENT}, {"spec.rules.0.match.headers": ABSENT}),
        refused=({"spec.rules.0.match": {}},),
    ),
    make_case(
        "RouteRule.some-weight",
        _RULED_ROUTE,
        "spec.rules[0].targets",
        "at least one of targets needs a weight above 0",
        accepted=({"spec.rules.0.targets.0.weight": 0},),
        refused=({"spec.rules.0.targets.0.weight": 0, "spec.rules.0.targets.1.weight": 0},),
    ),
    make_case(
        "RouteRule.targets-differ",
        _RULED_ROUTE,
        "spec.rules[0].targets",
        "targets must differ",
        accepted=({}, {"spec.rules.0.targets.1": {"provider": "openai", "model": "small"}}),
        refused=({"spec.rules.0.targets.1.deployment": "first"},),
    ),
    make_case(
        "LLMRouteSpec.rules-priority-without-weights",
        _RULED_ROUTE,
        "spec.rules",
        "under policy Priority the order of targets decides, in rules too",
        accepted=(
            {"spec.policy": "Priority", "spec.rules.0.targets.1.weight": 0},
            {"spec.rules.0.targets.1.weight": 2},
        ),
        refused=({"spec.policy": "Priority", "spec.rules.0.targets.1.weight": 2},),
    ),
    make_case(
        "LLMRouteSpec.rules-lowest-cost-without-weights",
        _RULED_ROUTE,
        "spec.rules",
        "under policy LowestCost cost decides, in rules too",
        accepted=(
            {"spec.policy": "LowestCost", "spec.rules.0.targets.1.weight": 0},
            {"spec.rules.0.targets.1.weight": 2},
        ),
        refused=({"spec.policy": "LowestCost", "spec.rules.0.targets.1.weight": 2},),
    ),
    make_case(
        "LLMRouteSpec.rules-sovereign-without-providers",
        _RULED_ROUTE,
        "spec.rules",
        "dataPolicy Sovereign lets no request leave the cluster, whatever rule it matches",
        accepted=(
            {"spec.dataPolicy": "Sovereign"},
            {"spec.rules.0.targets.1": {"provider": "openai", "model": "small"}},
        ),
        refused=(
            {
                "spec.dataPolicy": "Sovereign",
                "spec.rules.0.targets.1": {"provider": "openai", "model": "small"},
            },
        ),
    ),
    make_case(
        "LLMRouteSpec.rules-quality-is-stated",
        _FULL_ROUTE,
        "spec.rules",
        "minQuality holds in rules too",
        accepted=(
            {"spec.rules.0.targets.0.quality": ABSENT},
            {"spec.minQuality": ABSENT, "spec.rules.0.targets.1.quality": ABSENT},
        ),
        refused=({"spec.rules.0.targets.1.quality": ABSENT},),
    ),
    make_case(
        "LLMRouteSpec.rules-some-quality",
        _FULL_ROUTE,
        "spec.rules",
        "minQuality leaves a rule without a target",
        accepted=({"spec.minQuality": "0.8", "spec.rules.0.targets.1.weight": 0}, {"spec.minQuality": "1"}),
        refused=(
            {
                "spec.minQuality": "0.8",
                "spec.rules.0.targets.0.quality": "0.7999",
                "spec.rules.0.targets.1.weight": 0,
            },
        ),
    ),
)
