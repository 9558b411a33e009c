"""Accepting and rejecting manifests of each cross-field rule of LLMDeployments."""

from typing import Final

from tests.apiserver.manifests import ABSENT, BASES
from tests.apiserver.rulecase import RuleCase, make_case, make_range

_PLAIN, _PROFILED, _FULL, _EXTERNAL = BASES["LLMDeployment"]


DEPLOYMENT_RULES: Final[tuple[RuleCase, ...]] = (
    make_case(
        "Model.token-needs-hub",
        _FULL,
        "spec.model.tokenSecret",
        "tokenSecret is only used with an hf:// source",
        accepted=({}, {"spec.model.source": "pvc://claim", "spec.model.tokenSecret": ABSENT}),
        refused=({"spec.model.source": "pvc://claim"},),
    ),
    make_case(
        "ModelProfile.profile-active-parameters",
        _PROFILED,
        "spec.model.profile.activeParameters",
        "activeParameters must not be above parameters",
        accepted=({}, {"spec.model.profile.activeParameters": 8_030_261_248}),
        refused=({"spec.model.profile.activeParameters": 8_030_261_249},),
    ),
    make_case(
        "ModelProfile.profile-key-value-heads",
        _PROFILED,
        "spec.model.profile.keyValueHeads",
        "keyValueHeads must divide attentionHeads",
        accepted=({"spec.model.profile.keyValueHeads": 1}, {"spec.model.profile.keyValueHeads": 32}),
        refused=({"spec.model.profile.keyValueHeads": 5}, {"spec.model.profile.keyValueHeads": 64}),
    ),
    make_case(
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
    make_case(
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
    make_case(
        "ModelProfile.profile-sliding-layers",
        _PROFILED,
        "spec.model.profile.slidingLayers",
        "slidingLayers must not be above layers",
        accepted=({"spec.model.profile.slidingLayers": 32}, {}),
        refused=({"spec.model.profile.slidingLayers": 33},),
    ),
    make_case(
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
    make_range(
        "ServiceObjective.time-to-first-token-bounds",
        _FULL,
        "spec.scaling.slo.timeToFirstToken",
        ("50ms", "300s"),
        ("49ms", "301s", "0s"),
    ),
    make_range(
        "ServiceObjective.inter-token-latency-bounds",
        _FULL,
        "spec.scaling.slo.interTokenLatency",
        ("1ms", "10s"),
        ("0ms", "10001ms"),
    ),
    make_case(
        "Engine.parameters-vllm",
        _FULL,
        "spec.engine.parameters",
        "parameters may only name these flags of vLLM",
        accepted=({"spec.engine.parameters": {"dtype": "auto", "enforce-eager": ""}},),
        refused=({"spec.engine.parameters": {"port": "1"}}, {"spec.engine.parameters": {"gpu-layers": "1"}}),
    ),
    make_case(
        "Engine.parameters-llamacpp",
        _PLAIN,
        "spec.engine.parameters",
        "parameters may only name these flags of LlamaCpp",
        accepted=({"spec.engine": {"name": "LlamaCpp", "parameters": {"parallel": "4"}}},),
        refused=({"spec.engine": {"name": "LlamaCpp", "parameters": {"max-num-seqs": "4"}}},),
    ),
    make_case(
        "Scaling.min-not-above-max",
        _FULL,
        "spec.scaling.min",
        "min must not be above max",
        accepted=({"spec.scaling.min": 3, "spec.scaling.max": 3},),
        refused=({"spec.scaling.min": 4, "spec.scaling.max": 3},),
    ),
    make_case(
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
    make_case(
        "Scaling.external-needs-actuator",
        _EXTERNAL,
        "spec.scaling.external",
        "external is only used with actuator External",
        accepted=({}, {"spec.scaling.actuator": "Modelyard", "spec.scaling.external": ABSENT}),
        refused=({"spec.scaling.actuator": "Modelyard"},),
    ),
    make_case(
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
    make_case(
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
    make_case(
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
    make_case(
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
    make_case(
        "Schedule.duration-bounds",
        _FULL,
        "spec.scaling.schedules[0].duration",
        "duration must be from",
        accepted=tuple({"spec.scaling.schedules.0.duration": value} for value in ("1m", "168h")),
        refused=tuple({"spec.scaling.schedules.0.duration": value} for value in ("59s", "168h1s", "0s")),
    ),
    make_case(
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
    make_range(
        "Scaling.idle-after-bounds", _FULL, "spec.scaling.idleAfter", ("10s", "168h"), ("9s", "168h1s", "0s")
    ),
    make_range(
        "Rollout.start-timeout-bounds", _PLAIN, "spec.rollout.startTimeout", ("1m", "6h"), ("59s", "6h1s")
    ),
    make_range(
        "Rollout.drain-timeout-bounds", _PLAIN, "spec.rollout.drainTimeout", ("10s", "1h"), ("9s", "1h1s")
    ),
    make_case(
        "LLMDeploymentSpec.replicas-or-scaling",
        _PLAIN,
        "spec",
        "set exactly one of replicas",
        accepted=({"spec.replicas": 0}, {"spec.replicas": ABSENT, "spec.scaling": {"max": 2}}),
        refused=({"spec.replicas": ABSENT}, {"spec.scaling": {"max": 2}}),
    ),
    make_case(
        "LLMDeploymentSpec.adapters-need-vllm",
        _FULL,
        "spec.model.adapters",
        "model.adapters needs engine vLLM",
        accepted=({}, {"spec.engine": {"name": "LlamaCpp"}, "spec.model.adapters": []}),
        refused=({"spec.engine": {"name": "LlamaCpp"}},),
    ),
    make_case(
        "LLMDeploymentSpec.nodes-need-vllm",
        _PLAIN,
        "spec.placement.accelerators",
        "placement.accelerators[].nodes above 1 needs engine vLLM",
        accepted=({"spec.placement.accelerators.0.nodes": 2}, {"spec.engine": {"name": "LlamaCpp"}}),
        refused=({"spec.placement.accelerators.0.nodes": 2, "spec.engine": {"name": "LlamaCpp"}},),
    ),
    make_case(
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
    make_case(
        "LLMDeployment.name-is-a-label",
        _PLAIN,
        "metadata.name",
        "metadata.name names a Service and pods",
        accepted=({"metadata.name": "a" * 46}, {"metadata.name": "a-1"}),
        refused=({"metadata.name": "a" * 47}, {"metadata.name": "1a"}, {"metadata.name": "a.b"}),
    ),
)
