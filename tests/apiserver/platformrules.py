"""Accepting and rejecting manifests of each cross-field rule of providers, tenants, budgets and classes."""

from typing import Final

from tests.apiserver.manifests import ABSENT, BASES
from tests.apiserver.rulecase import RuleCase, make_case, make_range

_PROVIDER, _FULL_PROVIDER = BASES["LLMProvider"]
_, _FULL_TENANT = BASES["LLMTenant"]
_BUDGET, _SOFT_BUDGET, _LOWER_MAX_BUDGET, _ = BASES["LLMBudget"]
_CLASS, _, _FULL_CLASS = BASES["AcceleratorClass"]


PLATFORM_RULES: Final[tuple[RuleCase, ...]] = (
    make_case(
        "LLMProviderSpec.port-bounds",
        _PROVIDER,
        "spec.baseURL",
        "the port of baseURL must be from 1 to 65535",
        accepted=({"spec.baseURL": "https://example.com:65535/v1"}, {"spec.baseURL": "https://example.com"}),
        refused=({"spec.baseURL": "https://example.com:65536/v1"}, {"spec.baseURL": "https://a:99999"}),
    ),
    make_case(
        "LLMProviderSpec.base-url-without-endpoint",
        _PROVIDER,
        "spec.baseURL",
        "baseURL must end before the endpoint",
        accepted=(
            {"spec.baseURL": "https://example.com/chatty/v1"},
            {"spec.baseURL": "https://chat/v1/completions/v1"},
        ),
        refused=tuple(
            {"spec.baseURL": f"https://example.com/v1/{path}"}
            for path in ("chat/completions", "chat/completions/", "chat", "embeddings", "responses", "rerank")
        ),
    ),
    make_case(
        "ProviderPrice.cached-not-above-input",
        _FULL_PROVIDER,
        "spec.models[0].price.cachedInputPerMillion",
        "cachedInputPerMillion must not be above inputPerMillion",
        accepted=(
            {"spec.models.0.price.cachedInputPerMillion": "999999.999999"},
            {"spec.models.0.price": {"inputPerMillion": "0", "outputPerMillion": "0"}},
        ),
        refused=(
            {"spec.models.0.price.inputPerMillion": "0.0249"},
            {"spec.models.0.price.inputPerMillion": "9", "spec.models.0.price.cachedInputPerMillion": "10"},
        ),
    ),
    make_case(
        "TenantLimits.one-at-least",
        _FULL_TENANT,
        "spec.limits",
        "limits needs requestsPerMinute, tokensPerMinute or both",
        accepted=(
            {"spec.limits": {"requestsPerMinute": 1}},
            {"spec.limits": {"tokensPerMinute": 1}},
            {"spec.limits": ABSENT},
        ),
        refused=({"spec.limits": {}},),
    ),
    make_case(
        "ProviderLimits.one-at-least",
        _FULL_PROVIDER,
        "spec.limits",
        "limits needs requestsPerMinute, tokensPerMinute or both",
        accepted=(
            {"spec.limits": {"requestsPerMinute": 1}},
            {"spec.limits": {"tokensPerMinute": 1_000_000_000}},
            {"spec.limits": ABSENT},
        ),
        refused=({"spec.limits": {}},),
    ),
    make_case(
        "LLMBudgetSpec.amount-above-zero",
        _BUDGET,
        "spec.amount",
        "amount must be above 0",
        accepted=({"spec.amount": "0.000001"},),
        refused=({"spec.amount": "0"}, {"spec.amount": "0.00"}),
    ),
    make_case(
        "LLMBudgetSpec.time-zone-is-known",
        _BUDGET,
        "spec",
        "timeZone must be a name of the IANA time zone database",
        accepted=({"spec.timeZone": "Asia/Kathmandu"}, {"spec.timeZone": "UTC"}),
        refused=({"spec.timeZone": "Europe/Bonn"}, {"spec.timeZone": "Local"}),
    ),
    make_case(
        "LLMBudgetSpec.size-actions-need-deployments",
        _SOFT_BUDGET,
        "spec.scope",
        "actions LowerMax and Sleep change deployments for everybody who uses them",
        accepted=(
            {},
            {"spec.scope": {"namespaces": ["team"]}},
            {"spec.scope.providers": ["openai"]},
            {"spec.scope.tenants": ["search"], "spec.soft.action": "PreferCheaper"},
            {"spec.scope.routes": ["team/chat"], "spec.soft": ABSENT},
        ),
        refused=(
            {"spec.scope.tenants": ["search"]},
            {"spec.scope.routes": ["team/chat"], "spec.soft.action": "LowerMax"},
            {"spec.scope": {"providers": ["openai"]}},
        ),
    ),
    make_case(
        "SoftLimit.at-above-zero",
        _SOFT_BUDGET,
        "spec.soft.at",
        "at must be above 0",
        accepted=({"spec.soft.at": "0.0001"}, {"spec.soft.at": "1"}),
        refused=({"spec.soft.at": "0.0"}, {"spec.soft.at": "0.0000"}),
    ),
    make_case(
        "SoftLimit.max-share-with-lower-max",
        _LOWER_MAX_BUDGET,
        "spec.soft.maxShare",
        "maxShare is only used with action LowerMax",
        accepted=({}, {"spec.soft.maxShare": ABSENT}, {"spec.soft.maxShare": "1"}),
        refused=({"spec.soft.maxShare": "0.0"}, {"spec.soft.action": "Sleep"}),
    ),
    make_case(
        "Toleration.toleration-value",
        _FULL_CLASS,
        "spec.tolerations[0]",
        "operator Exists takes no value",
        accepted=({}, {"spec.tolerations.0": {"operator": "Exists"}}),
        refused=({"spec.tolerations.0.operator": "Exists"}, {"spec.tolerations.0.key": ABSENT}),
    ),
    make_case(
        "AcceleratorPrice.spot-not-above-on-demand",
        _FULL_CLASS,
        "spec.price.spot",
        "spot must not be above onDemand",
        accepted=({"spec.price": {"onDemand": "2", "spot": "2.0"}}, {"spec.price": {"onDemand": "0"}}),
        refused=(
            {"spec.price": {"onDemand": "2", "spot": "2.000001"}},
            {"spec.price": {"onDemand": "9", "spot": "10"}},
        ),
    ),
    make_case(
        "AcceleratorClassSpec.cpu-needs-requests",
        _CLASS,
        "spec.requests",
        "a class without resourceName is CPU only",
        accepted=({"spec.resourceName": ABSENT, "spec.requests": {"cpu": "2", "memory": "4Gi"}}, {}),
        refused=({"spec.resourceName": ABSENT},),
    ),
    make_range(
        "AcceleratorClassSpec.provision-time-bounds",
        _FULL_CLASS,
        "spec.provisionTime",
        ("1s", "6h"),
        ("0s", "6h1s"),
    ),
)
