"""What competes: our own decision and every published rule, by name and number of their settings."""

from dataclasses import replace

from benchmarks.autoscaling.loads import subject
from modelyard.simulator.fluidload import FluidLoad
from modelyard.simulator.modelyard import ModelyardPolicy
from modelyard.simulator.rivals.catalogue import RIVALS, rival
from modelyard.simulator.rivals.common import round_up
from modelyard.simulator.rivals.melange import MelangeSettings, load_per_request
from modelyard.simulator.rivals.static import Static, StaticSettings, mean_rate, peak_rate
from modelyard.simulator.scenario import Arrivals, ScalingPolicy, Scenario, Signals
from modelyard.simulator.wrapper import PolicyWrapper

OURS = "modelyard"
CLAIRVOYANT = "clairvoyant"
CAPACITY_FACTORS = (1.0, 0.7, 0.85, 1.2)
"""Our settings: the declared capacity of a replica, times this. The first is the default, the one that must show."""
DOCUMENTED = 0
"""Number of the documented settings, the first of every rule's."""
RIVAL_NAMES = tuple(known.name for known in RIVALS)
NAMES = (OURS, *RIVAL_NAMES)


def settings_of(name: str) -> int:
    """Return how many settings there are to try."""
    return len(CAPACITY_FACTORS) if name == OURS else len(tuple(rival(name).candidates()))


def needs_hindsight(name: str) -> bool:
    """Say whether a policy is given the whole trace before it starts."""
    return name != OURS and rival(name).hindsight


def describe(name: str, setting: int) -> str:
    """Return what a setting changes against the documented ones."""
    if name == OURS:
        return f"capacity x {CAPACITY_FACTORS[setting]:g}" if setting else "default"
    if setting == DOCUMENTED:
        return "documented"
    known = rival(name)
    chosen = tuple(known.candidates())[setting]
    return ", ".join(f"{field} {_short(getattr(chosen, field))}" for field in known.tuning)


def _short(value: object) -> str:
    figure, unit = getattr(value, "value", None), getattr(value, "unit", "")
    if figure is not None:
        return f"{figure:g} of the batch" if unit == "batch" else f"{figure:g}"
    window = getattr(value, "down_window", None)
    return f"down {window:g} s" if window is not None else str(value)


def make_policy(name: str, setting: int, scenario: Scenario) -> ScalingPolicy:
    """Return a new policy for one run."""
    if name == OURS:
        told = replace(scenario, capacity=scenario.capacity * CAPACITY_FACTORS[setting])
        return ModelyardPolicy(told, subject=subject())
    settings = tuple(rival(name).candidates())[setting]
    if isinstance(settings, MelangeSettings):
        rate = mean_rate if settings.basis == "mean" else peak_rate
        return _melange(name, scenario, settings, rate(scenario.arrivals))
    return rival(name).policy(scenario, settings)


class _LastLoad:
    """Melange's load of the requests last asked for: millions of them take seconds."""

    def __init__(self) -> None:
        self._arrivals: Arrivals | None = None
        self._load = 0.0

    def of(self, scenario: Scenario) -> float:
        """Return the mean load of a scenario's requests, in replicas per request and second."""
        if self._arrivals is not scenario.arrivals:
            self._arrivals, self._load = scenario.arrivals, load_per_request(scenario)
        return self._load


_LAST_LOAD = _LastLoad()


def make_days_policy(name: str, setting: int, scenario: Scenario, load: FluidLoad) -> ScalingPolicy:
    """Return a new policy for a load that is only known as a flow: fixed sizes see its rates, not the scenario's."""
    rates = load.rate
    if not needs_hindsight(name):
        return make_policy(name, setting, scenario)
    settings = tuple(rival(name).candidates())[setting]
    rate = float(rates.max() if settings.basis == "peak" else rates.mean())
    if isinstance(settings, StaticSettings):
        return Static(name, scenario, round_up(rate / (scenario.capacity * settings.utilization)))
    if isinstance(settings, MelangeSettings):
        return _melange(name, scenario, settings, rate)
    raise TypeError(f"{name} needs the whole trace, and a flow has no single requests")


def _melange(name: str, scenario: Scenario, settings: MelangeSettings, rate: float) -> Static:
    """Return the rule's fixed size for a rate; the load of a request is worked out once for all settings."""
    return Static(name, scenario, round_up(rate * settings.overprovision * _LAST_LOAD.of(scenario)))


class Counted(PolicyWrapper):
    """Counts the decisions of a policy: a figure of a policy that never decided is worth nothing."""

    def __init__(self, policy: ScalingPolicy) -> None:
        super().__init__(policy)
        self.decisions = 0

    def decide(self, signals: Signals) -> int:
        """Return the replicas wanted."""
        self.decisions += 1
        return super().decide(signals)
