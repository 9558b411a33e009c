"""All rivals: their documented settings, and the small space in which the benchmark looks for one tuned setting."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from types import MappingProxyType
from typing import Any, Protocol

from modelyard.simulator.rivals.aibrix import Apa, ApaSettings, Kpa, KpaSettings
from modelyard.simulator.rivals.common import Target
from modelyard.simulator.rivals.dynamo import Dynamo, DynamoSettings
from modelyard.simulator.rivals.eppsaturation import EppSaturation, EppSaturationSettings
from modelyard.simulator.rivals.forecasts import Kind
from modelyard.simulator.rivals.hpa import DEFAULT_BEHAVIOUR, Behaviour, Hpa, HpaSettings
from modelyard.simulator.rivals.keda import Keda, KedaSettings
from modelyard.simulator.rivals.knative import Knative, KnativeSettings
from modelyard.simulator.rivals.kubeai import KubeAI, KubeAISettings
from modelyard.simulator.rivals.melange import MelangeSettings, melange
from modelyard.simulator.rivals.rayserve import RayServe, RayServeSettings
from modelyard.simulator.rivals.static import StaticSettings, static
from modelyard.simulator.rivals.wva import WvaV1, WvaV1Settings, WvaV2, WvaV2Settings
from modelyard.simulator.scenario import ScalingPolicy, Scenario


class Maker(Protocol):
    """Makes a policy of a rival's settings."""

    def __call__(self, name: str, scenario: Scenario, settings: Any, /) -> ScalingPolicy:
        """Return a new policy; it serves one run."""


@dataclass(frozen=True, slots=True)
class Rival:
    """One published rule."""

    name: str
    maker: Maker
    documented: Any
    """Settings as documented: a frozen dataclass of the rule's module."""
    tuning: Mapping[str, tuple[Any, ...]]
    """Fields of the settings, and the values to try; all combinations are candidates. Empty: nothing to tune."""
    hindsight: bool = False
    """Whether it needs the whole trace before it starts."""

    def policy(self, scenario: Scenario, settings: Any = None) -> ScalingPolicy:
        """Return a new policy with these settings; None: the documented ones."""
        return self.maker(self.name, scenario, self.documented if settings is None else settings)

    def candidates(self) -> Iterator[Any]:
        """Return the settings among which the tuned one is looked for, the documented first."""
        yield self.documented
        for values in product(*self.tuning.values()):
            candidate = replace(self.documented, **dict(zip(self.tuning, values, strict=True)))
            if candidate != self.documented:
                yield candidate


def _tuning(**values: tuple[Any, ...]) -> Mapping[str, tuple[Any, ...]]:
    return MappingProxyType(values)


_BATCH_SHARES = tuple(Target(share, "batch") for share in (0.3, 0.45, 0.6, 0.75, 0.9))
"""Targets in shares of the batch at which a replica gives its capacity. A replica at half its load holds far less
than half that batch, since requests then take less time; so the useful shares are spread widely."""

_DOWN_WINDOWS = (DEFAULT_BEHAVIOUR, Behaviour(down_window=600.0), Behaviour(down_window=1200.0))
"""The HPA's behaviour, and with longer stabilisation downwards."""


def _dynamo(kind: Kind, *, load_mode: bool) -> Rival:
    tuning = (
        _tuning(throughput_interval=(60.0, 180.0), load_target=("sla", "throughput"))
        if load_mode
        else _tuning(throughput_interval=(60.0, 120.0, 180.0))
    )
    name = f"dynamo-{kind}{'-load' if load_mode else ''}"
    return Rival(name, Dynamo, DynamoSettings(kind, load_mode), tuning)


RIVALS: tuple[Rival, ...] = (
    Rival(
        "static-peak",
        static,
        StaticSettings("peak"),
        _tuning(utilization=(0.7, 0.8, 0.9, 1.0)),
        hindsight=True,
    ),
    Rival(
        "static-mean",
        static,
        StaticSettings("mean"),
        _tuning(utilization=(0.5, 0.65, 0.8, 1.0)),
        hindsight=True,
    ),
    Rival(
        "hpa-gpu",
        Hpa,
        # 90 %: OpenShift, "Configuring GPU-based autoscaling with Prometheus and DCGM metrics" (openshift-docs 100571).
        HpaSettings("gpu", Target(0.9)),
        _tuning(
            target=tuple(Target(share) for share in (0.5, 0.6, 0.7, 0.8, 0.9)), behaviour=_DOWN_WINDOWS[:2]
        ),
    ),
    Rival(
        "hpa-cpu",
        Hpa,
        HpaSettings("cpu", Target(0.8)),
        _tuning(target=tuple(Target(share) for share in (0.09, 0.1, 0.11, 0.12, 0.13))),
    ),
    Rival(
        "hpa-concurrency",
        Hpa,
        # 16: the running-request threshold of llm-d guides/workload-autoscaling/keda-epp.
        HpaSettings("concurrency", Target(16)),
        _tuning(target=_BATCH_SHARES, behaviour=_DOWN_WINDOWS[:2]),
    ),
    Rival(
        "keda-queue",
        Keda,
        KedaSettings(),
        _tuning(queue=tuple(Target(queue) for queue in (1, 2, 5, 10, 20)), behaviour=_DOWN_WINDOWS),
    ),
    Rival(
        "keda-queue-cache",
        Keda,
        KedaSettings(cache=0.7),
        _tuning(queue=(Target(1), Target(5)), cache=(0.2, 0.35, 0.5, 0.7), behaviour=_DOWN_WINDOWS[:2]),
    ),
    Rival(
        "knative",
        Knative,
        KnativeSettings(),
        _tuning(concurrency=_BATCH_SHARES, stable_window=(60.0, 300.0), scale_down_delay=(0.0, 600.0)),
    ),
    Rival(
        "kubeai",
        KubeAI,
        KubeAISettings(),
        _tuning(target_requests=_BATCH_SHARES, window=(120.0, 600.0)),
    ),
    Rival(
        "ray-serve",
        RayServe,
        RayServeSettings(),
        _tuning(target_ongoing_requests=_BATCH_SHARES, upscale_delay=(0.0, 30.0)),
    ),
    Rival(
        "aibrix-apa",
        Apa,
        ApaSettings(),
        _tuning(target=tuple(Target(share) for share in (0.1, 0.2, 0.3, 0.5, 0.7))),
    ),
    Rival("aibrix-kpa", Kpa, KpaSettings(), _tuning(target=_BATCH_SHARES, panic_window=(30.0, 60.0))),
    Rival(
        "wva-v1",
        WvaV1,
        WvaV1Settings(),
        _tuning(cache_threshold=(0.3, 0.5, 0.65, 0.8), queue_spare=(3.0, 4.5)),
    ),
    Rival(
        "wva-v2",
        WvaV2,
        WvaV2Settings(),
        _tuning(cache_threshold=(0.5, 0.8), scale_up=(0.6, 0.7, 0.85), scale_down=(0.4, 0.55)),
    ),
    Rival(
        "wva-p90",
        EppSaturation,
        EppSaturationSettings(),
        _tuning(scale_up=(0.55, 0.65, 0.75, 0.85), scale_down=(0.3, 0.4, 0.5)),
    ),
    *(_dynamo(kind, load_mode=load) for load in (False, True) for kind in ("constant", "arima", "kalman")),
    Rival(
        "melange",
        melange,
        MelangeSettings(),
        _tuning(basis=("mean", "peak"), overprovision=(1.0, 1.15, 1.3)),
        hindsight=True,
    ),
)


def rival(name: str) -> Rival:
    """Return the rival of that name. Raises KeyError if there is none."""
    return {known.name: known for known in RIVALS}[name]
