"""Accepting and rejecting manifests of each cross-field rule."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.apiserver.manifests import ABSENT, BASES, Path, parse_path

Patch = Mapping[Path, Any]


@dataclass(frozen=True)
class RuleCase:
    """Changes to a manifest that a rule lets through, and changes that only this rule refuses."""

    name: str
    """`Model.rule-name`."""
    base: dict[str, Any]
    accepted: tuple[Patch, ...]
    refused: tuple[Patch, ...]
    field: str
    message: str


def _case(
    name: str,
    base: dict[str, Any],
    field: str,
    message: str,
    accepted: tuple[dict[str, Any], ...],
    refused: tuple[dict[str, Any], ...],
) -> RuleCase:
    def parse(patches: tuple[dict[str, Any], ...]) -> tuple[Patch, ...]:
        return tuple({parse_path(path): value for path, value in patch.items()} for patch in patches)

    return RuleCase(name, base, parse(accepted), parse(refused), field, message)


_PLAIN, _PROFILED, _FULL, _EXTERNAL = BASES["LLMDeployment"]
_ROUTE, _RULED_ROUTE, _FULL_ROUTE, _ = BASES["LLMRoute"]
_PROVIDER, _FULL_PROVIDER = BASES["LLMProvider"]
_, _FULL_TENANT = BASES["LLMTenant"]
_BUDGET, _SOFT_BUDGET, _LOWER_MAX_BUDGET, _ = BASES["LLMBudget"]
_CLASS, _, _FULL_CLASS = BASES["AcceleratorClass"]


def _range(
    name: str, base: dict[str, Any], field: str, inside: tuple[str, ...], outside: tuple[str, ...]
) -> RuleCase:
    return _case(
        name,
        base,
        field,
        f"{field.rpartition('.')[2]} must be from",
        tuple({field: value} for value in inside),
        tuple({field: value} for value in outside),
    )


RULE_CASES: Final = (
    _case(
        "Model.token-needs-hub",
        _FULL,
        "spec.model.tokenSecret",
        "tokenSecret is only used with an hf:// source",
        accepted=({}, {"spec.model.source": "pvc://claim", "spec.model.tokenSecret": ABSENT}),
        refused=({"spec.model.source": "pvc://claim"},),
    ),
    _case(
        "ModelProfile.profile-active-parameters",
        _PROFILED,
        "spec.model.profile.activeParameters",
        "activeParameters must not be above parameters",
        accepted=({}, {"spec.model.profile.activeParameters": 8_030_261_248}),
        refused=({"spec.model.profile.activeParameters": 8_030_261_249},),
    ),
    _case(
        "ModelProfile.profile-key-value-heads",
        _PROFILED,
        "spec.model.profile.keyValueHeads",
        "keyValueHeads must divide attentionHeads",
        accepted=({"spec.model.profile.keyValueHeads": 1}, {"spec.model.profile.keyValueHeads": 32}),
        refused=({"spec.model.profile.keyValueHeads": 5}, {"spec.model.profile.keyValueHeads": 64}),
    ),
    _case(
        "ModelProfile.profile-latent-dimension",
        _FULL,
        "spec.model.profile.latentDimension",
        "attention MultiHeadLatent needs latentDimension",
        accepted=(
            {"spec.model.profile.attention": "MultiHeadLatent"},
            {"spec.model.profile.latentDimension": ABSENT},
        ),
        refused=(
            {
                "spec.model.profile.attention": "MultiHeadLatent",
                "spec.model.profile.latentDimension": ABSENT,
            },
        ),
    ),
    _case(
        "ModelProfile.profile-sliding-window",
        _FULL,
        "spec.model.profile.slidingWindow",
        "attention SlidingWindow needs slidingWindow",
        accepted=(
            {},
            {"spec.model.profile.attention": "Full", "spec.model.profile.slidingWindow": ABSENT},
        ),
        refused=({"spec.model.profile.slidingWindow": ABSENT},),
    ),
    _case(
        "ModelProfile.profile-sliding-layers",
        _PROFILED,
        "spec.model.profile.slidingLayers",
        "slidingLayers must not be above layers",
        accepted=({"spec.model.profile.slidingLayers": 32}, {}),
        refused=({"spec.model.profile.slidingLayers": 33},),
    ),
    _case(
        "ModelProfile.profile-experts",
        _FULL,
        "spec.model.profile",
        "set experts and activeExperts together",
        accepted=({}, {"spec.model.profile.experts": 8, "spec.model.profile.activeExperts": 8}),
        refused=(
            {"spec.model.profile.experts": ABSENT},
            {"spec.model.profile.activeExperts": ABSENT},
            {"spec.model.profile.experts": 8, "spec.model.profile.activeExperts": 9},
        ),
    ),
    _range(
        "ServiceObjective.time-to-first-token-bounds",
        _FULL,
        "spec.scaling.slo.timeToFirstToken",
        ("50ms", "300s"),
        ("49ms", "301s", "0s"),
    ),
    _range(
        "ServiceObjective.inter-token-latency-bounds",
        _FULL,
        "spec.scaling.slo.interTokenLatency",
        ("1ms", "10s"),
        ("0ms", "10001ms"),
    ),
    _case(
        "Engine.parameters-vllm",
        _FULL,
        "spec.engine.parameters",
        "parameters may only name these flags of vLLM",
        accepted=({"spec.engine.parameters": {"dtype": "auto", "enforce-eager": ""}},),
        refused=({"spec.engine.parameters": {"port": "1"}}, {"spec.engine.parameters": {"gpu-layers": "1"}}),
    ),
    _case(
        "Engine.parameters-llamacpp",
        _PLAIN,
        "spec.engine.parameters",
        "parameters may only name these flags of LlamaCpp",
        accepted=({"spec.engine": {"name": "LlamaCpp", "parameters": {"parallel": "4"}}},),
        refused=({"spec.engine": {"name": "LlamaCpp", "parameters": {"max-num-seqs": "4"}}},),
    ),
    _case(
        "Scaling.min-not-above-max",
        _FULL,
        "spec.scaling.min",
        "min must not be above max",
        accepted=({"spec.scaling.min": 3, "spec.scaling.max": 3},),
        refused=({"spec.scaling.min": 4, "spec.scaling.max": 3},),
    ),
    _case(
        "Scaling.external-keeps-one",
        _FULL,
        "spec.scaling.min",
        "only Modelyard can wake a sleeping model",
        accepted=(
            {"spec.scaling.actuator": "External", "spec.scaling.min": 1},
            {"spec.scaling.actuator": "Modelyard", "spec.scaling.min": 0},
        ),
        refused=({"spec.scaling.actuator": "External", "spec.scaling.min": 0},),
    ),
    _case(
        "Scaling.external-needs-actuator",
        _EXTERNAL,
        "spec.scaling.external",
        "external is only used with actuator External",
        accepted=({}, {"spec.scaling.actuator": "Modelyard", "spec.scaling.external": ABSENT}),
        refused=({"spec.scaling.actuator": "Modelyard"},),
    ),
    _case(
        "Scaling.schedule-min-not-above-max",
        _FULL,
        "spec.scaling.schedules",
        "in a schedule min must not be above max",
        accepted=(
            {"spec.scaling.schedules.0.min": 3, "spec.scaling.schedules.0.max": 3},
            {
                "spec.scaling.schedules.0.min": ABSENT,
                "spec.scaling.schedules.0.max": 3,
                "spec.scaling.min": 3,
            },
        ),
        refused=(
            {"spec.scaling.schedules.0.min": 4, "spec.scaling.schedules.0.max": 3},
            {
                "spec.scaling.schedules.0.min": 4,
                "spec.scaling.schedules.0.max": ABSENT,
                "spec.scaling.max": 3,
            },
            {
                "spec.scaling.schedules.0.min": ABSENT,
                "spec.scaling.schedules.0.max": 3,
                "spec.scaling.min": 4,
            },
        ),
    ),
    _case(
        "Scaling.external-schedules-keep-one",
        _FULL,
        "spec.scaling.schedules",
        "only Modelyard can wake a sleeping model",
        accepted=(
            {"spec.scaling.actuator": "External"},
            {"spec.scaling.actuator": "External", "spec.scaling.schedules.0.min": ABSENT},
            {"spec.scaling.schedules.0.min": 0},
        ),
        refused=({"spec.scaling.actuator": "External", "spec.scaling.schedules.0.min": 0},),
    ),
    _case(
        "Schedule.start-is-cron",
        _FULL,
        "spec.scaling.schedules[0].start",
        "start must be five cron fields",
        accepted=tuple(
            {"spec.scaling.schedules.0.start": start}
            for start in ("*/5 0-23/2 * * *", "00 08 1,15 JAN-mar,12 *", "59 23 31 12 7", "0 8 29 2 *")
        ),
        refused=tuple(
            {"spec.scaling.schedules.0.start": start}
            for start in (
                "@daily",
                "0 8 * * 1-5 *",
                "60 8 * * *",
                "0 24 * * *",
                "0 8 0 * *",
                "0 8 32 * *",
                "0 8 * 13 *",
                "0 8 * * 8",
                "0 8 * * mo",
                "*/0 8 * * *",
                "0 8 L * *",
                "0 8 * *  ",
            )
        ),
    ),
    _case(
        "Schedule.time-zone-is-known",
        _FULL,
        "spec.scaling.schedules[0]",
        "timeZone must be a name of the IANA time zone database",
        accepted=({}, {"spec.scaling.schedules.0.timeZone": ABSENT}),
        refused=tuple(
            {"spec.scaling.schedules.0.timeZone": zone}
            for zone in ("Europe/Bonn", "Local", "europe/berlin", "Europe", "CEST", "+01", "localtime")
        ),
    ),
    _case(
        "Schedule.duration-bounds",
        _FULL,
        "spec.scaling.schedules[0].duration",
        "duration must be from",
        accepted=tuple({"spec.scaling.schedules.0.duration": value} for value in ("1m", "168h")),
        refused=tuple({"spec.scaling.schedules.0.duration": value} for value in ("59s", "168h1s", "0s")),
    ),
    _case(
        "Schedule.schedule-sets-a-bound",
        _FULL,
        "spec.scaling.schedules[0]",
        "a schedule needs min, max or both",
        accepted=(
            {"spec.scaling.schedules.0.min": ABSENT},
            {"spec.scaling.schedules.0.max": ABSENT},
        ),
        refused=({"spec.scaling.schedules.0.min": ABSENT, "spec.scaling.schedules.0.max": ABSENT},),
    ),
    _range(
        "Scaling.idle-after-bounds", _FULL, "spec.scaling.idleAfter", ("10s", "168h"), ("9s", "168h1s", "0s")
    ),
    _range(
        "Rollout.start-timeout-bounds", _PLAIN, "spec.rollout.startTimeout", ("1m", "6h"), ("59s", "6h1s")
    ),
    _range(
        "Rollout.drain-timeout-bounds", _PLAIN, "spec.rollout.drainTimeout", ("10s", "1h"), ("9s", "1h1s")
    ),
    _case(
        "LLMDeploymentSpec.replicas-or-scaling",
        _PLAIN,
        "spec",
        "set exactly one of replicas",
        accepted=({"spec.replicas": 0}, {"spec.replicas": ABSENT, "spec.scaling": {"max": 2}}),
        refused=({"spec.replicas": ABSENT}, {"spec.scaling": {"max": 2}}),
    ),
    _case(
        "LLMDeploymentSpec.adapters-need-vllm",
        _FULL,
        "spec.model.adapters",
        "model.adapters needs engine vLLM",
        accepted=({}, {"spec.engine": {"name": "LlamaCpp"}, "spec.model.adapters": []}),
        refused=({"spec.engine": {"name": "LlamaCpp"}},),
    ),
    _case(
        "LLMDeploymentSpec.nodes-need-vllm",
        _PLAIN,
        "spec.placement.accelerators",
        "placement.accelerators[].nodes above 1 needs engine vLLM",
        accepted=({"spec.placement.accelerators.0.nodes": 2}, {"spec.engine": {"name": "LlamaCpp"}}),
        refused=({"spec.placement.accelerators.0.nodes": 2, "spec.engine": {"name": "LlamaCpp"}},),
    ),
    _case(
        "LLMDeployment.name-leaves-room-for-groups",
        _PLAIN,
        "metadata.name",
        "metadata.name may have 42 characters",
        accepted=(
            {"metadata.name": "a" * 42, "spec.placement.accelerators.0.nodes": 2},
            {"metadata.name": "a" * 43},
        ),
        refused=({"metadata.name": "a" * 43, "spec.placement.accelerators.0.nodes": 2},),
    ),
    _case(
        "LLMDeployment.name-is-a-label",
        _PLAIN,
        "metadata.name",
        "metadata.name names a Service and pods",
        accepted=({"metadata.name": "a" * 46}, {"metadata.name": "a-1"}),
        refused=({"metadata.name": "a" * 47}, {"metadata.name": "1a"}, {"metadata.name": "a.b"}),
    ),
    _range("Timeouts.hold-bounds", _ROUTE, "spec.timeouts.hold", ("1s", "1h"), ("0s", "1h1s")),
    _range("Timeouts.request-bounds", _ROUTE, "spec.timeouts.request", ("1s", "6h"), ("0s", "6h1s")),
    _case(
        "LLMRouteSpec.some-weight",
        _ROUTE,
        "spec.targets",
        "at least one of targets needs a weight above 0",
        accepted=({"spec.targets.0.weight": 0, "spec.targets.1.weight": 1},),
        refused=({"spec.targets.0.weight": 0, "spec.targets.1.weight": 0},),
    ),
    _range(
        "Timeouts.first-token-bounds", _FULL_ROUTE, "spec.timeouts.firstToken", ("1s", "1h"), ("0s", "1h1s")
    ),
    _case(
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
    _case(
        "RouteTarget.adapter-of-deployment",
        _ROUTE,
        "spec.targets[0].adapter",
        "an adapter is one of a deployment",
        accepted=({"spec.targets.0.adapter": "org/lora"},),
        refused=({"spec.targets.0": {"provider": "openai", "model": "small", "adapter": "org/lora"}},),
    ),
    _case(
        "LLMRouteSpec.lowest-cost-without-adapters",
        _ROUTE,
        "spec.targets",
        "policy LowestCost does not choose among adapters",
        accepted=({"spec.targets.0.adapter": "org/lora"}, {"spec.policy": "LowestCost"}),
        refused=({"spec.policy": "LowestCost", "spec.targets.0.adapter": "org/lora"},),
    ),
    _case(
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
    _case(
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
    _case(
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
    _case(
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
    _case(
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
    _case(
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
    _case(
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
    _case(
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
    _case(
        "RuleMatch.some-match",
        _RULED_ROUTE,
        "spec.rules[0].match",
        "match needs tenants or headers",
        accepted=({"spec.rules.0.match.tenants": ABSENT}, {"spec.rules.0.match.headers": ABSENT}),
        refused=({"spec.rules.0.match": {}},),
    ),
    _case(
        "RouteRule.some-weight",
        _RULED_ROUTE,
        "spec.rules[0].targets",
        "at least one of targets needs a weight above 0",
        accepted=({"spec.rules.0.targets.0.weight": 0},),
        refused=({"spec.rules.0.targets.0.weight": 0, "spec.rules.0.targets.1.weight": 0},),
    ),
    _case(
        "RouteRule.targets-differ",
        _RULED_ROUTE,
        "spec.rules[0].targets",
        "targets must differ",
        accepted=({}, {"spec.rules.0.targets.1": {"provider": "openai", "model": "small"}}),
        refused=({"spec.rules.0.targets.1.deployment": "first"},),
    ),
    _case(
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
    _case(
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
    _case(
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
    _case(
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
    _case(
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
    _case(
        "LLMProviderSpec.port-bounds",
        _PROVIDER,
        "spec.baseURL",
        "the port of baseURL must be from 1 to 65535",
        accepted=({"spec.baseURL": "https://example.com:65535/v1"}, {"spec.baseURL": "https://example.com"}),
        refused=({"spec.baseURL": "https://example.com:65536/v1"}, {"spec.baseURL": "https://a:99999"}),
    ),
    _case(
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
    _case(
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
    _case(
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
    _case(
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
    _case(
        "LLMBudgetSpec.amount-above-zero",
        _BUDGET,
        "spec.amount",
        "amount must be above 0",
        accepted=({"spec.amount": "0.000001"},),
        refused=({"spec.amount": "0"}, {"spec.amount": "0.00"}),
    ),
    _case(
        "LLMBudgetSpec.time-zone-is-known",
        _BUDGET,
        "spec",
        "timeZone must be a name of the IANA time zone database",
        accepted=({"spec.timeZone": "Asia/Kathmandu"}, {"spec.timeZone": "UTC"}),
        refused=({"spec.timeZone": "Europe/Bonn"}, {"spec.timeZone": "Local"}),
    ),
    _case(
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
    _case(
        "SoftLimit.at-above-zero",
        _SOFT_BUDGET,
        "spec.soft.at",
        "at must be above 0",
        accepted=({"spec.soft.at": "0.0001"}, {"spec.soft.at": "1"}),
        refused=({"spec.soft.at": "0.0"}, {"spec.soft.at": "0.0000"}),
    ),
    _case(
        "SoftLimit.max-share-with-lower-max",
        _LOWER_MAX_BUDGET,
        "spec.soft.maxShare",
        "maxShare is only used with action LowerMax",
        accepted=({}, {"spec.soft.maxShare": ABSENT}, {"spec.soft.maxShare": "1"}),
        refused=({"spec.soft.maxShare": "0.0"}, {"spec.soft.action": "Sleep"}),
    ),
    _case(
        "Toleration.toleration-value",
        _FULL_CLASS,
        "spec.tolerations[0]",
        "operator Exists takes no value",
        accepted=({}, {"spec.tolerations.0": {"operator": "Exists"}}),
        refused=({"spec.tolerations.0.operator": "Exists"}, {"spec.tolerations.0.key": ABSENT}),
    ),
    _case(
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
    _case(
        "AcceleratorClassSpec.cpu-needs-requests",
        _CLASS,
        "spec.requests",
        "a class without resourceName is CPU only",
        accepted=({"spec.resourceName": ABSENT, "spec.requests": {"cpu": "2", "memory": "4Gi"}}, {}),
        refused=({"spec.resourceName": ABSENT},),
    ),
    _range(
        "AcceleratorClassSpec.provision-time-bounds",
        _FULL_CLASS,
        "spec.provisionTime",
        ("1s", "6h"),
        ("0s", "6h1s"),
    ),
)
