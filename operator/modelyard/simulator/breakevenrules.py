"""One route with an own fleet and one provider or more: rules that choose between them, for a simulated run.

`LowestCost` is the cluster's own decision; beside it there are the two that never change.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from modelyard.core.breakeven.decide import decide_targets
from modelyard.core.breakeven.inputs import (
    BreakEvenInput,
    BreakEvenPolicy,
    DeploymentInput,
    OwnTarget,
    ProviderTarget,
    RouteInput,
    Target,
    TokenPrice,
)
from modelyard.core.breakeven.load import LoadHistory, count_arrivals, expect_load, mean_request
from modelyard.core.breakeven.memory import BreakEvenMemory, RouteChoice
from modelyard.core.load import LoadShape
from modelyard.core.scaling.starts import start_time
from modelyard.core.shape import ShapeMemory, observe_shape
from modelyard.core.snapshot import GatewayReading
from modelyard.simulator.modelyard import KEY, READ_INTERVAL, ModelyardPolicy
from modelyard.simulator.rivals.common import mean_shape
from modelyard.simulator.scenario import Scenario, Signals

FLEET = Target("Deployment", KEY)


@dataclass(frozen=True, slots=True)
class Api:
    """A provider's model with a fixed latency."""

    name: str
    price: TokenPrice | None
    first_token: float = 0.5
    """Seconds."""
    inter_token: float = 0.01
    """Seconds."""
    quality: float | None = None


@dataclass(frozen=True, slots=True)
class RouteTerms:
    """What the route asks for."""

    providers: tuple[Api, ...]
    fleet_quality: float | None = None
    minimum_quality: float | None = None

    def find(self, target: Target) -> Api:
        """Return a provider by its target."""
        return next(api for api in self.providers if api.name == target.name)

    def admits(self, target: Target) -> bool:
        """Say whether a target has the quality that the route asks for."""
        quality = self.fleet_quality if target.own else self.find(target).quality
        least = self.minimum_quality
        return least is None or (quality is not None and quality >= least)


@dataclass(frozen=True, slots=True)
class Offered:
    """What has come to the route so far, as the gateway counts it."""

    requests: float
    input_tokens: float
    output_tokens: float


@dataclass(frozen=True, slots=True)
class Order:
    """What a rule decides: where requests go until its next decision, and how many replicas there should be."""

    shares: Sequence[tuple[Target, float]]
    """Parts of the requests; they add up to 1."""
    replicas: int


class RouteRule(Protocol):
    """Chooses where requests go, and how many replicas there are. One object for one run."""

    @property
    def name(self) -> str:
        """Name in reports."""

    @property
    def interval(self) -> float:
        """Seconds between two decisions."""

    def begin(self) -> Order:
        """Return where requests go until the first decision; the replicas are the scenario's."""

    def order(self, signals: Signals, offered: Offered) -> Order:
        """Decide. `signals`: of the fleet, with what it was sent; `offered`: to the route."""


class FleetRule(ModelyardPolicy):
    """The cluster's size rule for a deployment that a route may leave: it follows the route's load, not its share."""

    def size_for(self, signals: Signals, arrivals: int) -> int:
        """Return the replicas for a route to which so many requests came since the last look."""
        # What runs is what the route's rule asked for, which may be none.
        self._replicas = signals.ready + signals.pending
        return self.decide(replace(signals, arrivals=arrivals))

    @property
    def missed(self) -> float | None:
        """Share of requests that it plans to miss; None: the usual."""
        return self._memory.size.load.headroom.allowed

    @property
    def start_time(self) -> float | None:
        """Seconds of a start as measured; None before the first."""
        measured = start_time(self._memory.size.starts, 0.0)
        return measured or None


class AlwaysFleet:
    """All requests go to the fleet, sized by the cluster's decision."""

    def __init__(self, scenario: Scenario) -> None:
        self._fleet = FleetRule(scenario)

    @property
    def name(self) -> str:
        """Name in reports."""
        return "always self-host"

    @property
    def interval(self) -> float:
        """Seconds between two decisions."""
        return self._fleet.interval

    def begin(self) -> Order:
        """Return where requests go until the first decision."""
        return Order(((FLEET, 1.0),), 0)

    def order(self, signals: Signals, offered: Offered) -> Order:  # noqa: ARG002 the protocol's
        """Decide."""
        return Order(((FLEET, 1.0),), self._fleet.decide(signals))


class AlwaysApi:
    """All requests go to one provider."""

    name = "always API"
    interval = READ_INTERVAL

    def __init__(self, api: Api) -> None:
        self._target = Target("Provider", api.name)

    def begin(self) -> Order:
        """Return where requests go until the first decision."""
        return Order(((self._target, 1.0),), 0)

    def order(self, signals: Signals, offered: Offered) -> Order:  # noqa: ARG002 the protocol's
        """Decide."""
        return Order(((self._target, 1.0),), 0)


class LowestCost:
    """The cluster's decision between the fleet and the providers."""

    def __init__(
        self,
        scenario: Scenario,
        terms: RouteTerms,
        policy: BreakEvenPolicy | None = None,
        *,
        assumed_start: float | None = None,
        interval: float = READ_INTERVAL,
    ) -> None:
        """`assumed_start`: seconds that a start is thought to take before one was measured; None: as it does.

        `interval`: seconds between two decisions; above `BIN` of `core.breakeven.load` the forecast is another.
        """
        self._interval = interval
        self._scenario, self._terms, self._policy = scenario, terms, policy or BreakEvenPolicy()
        self._fleet = FleetRule(scenario)
        usual = scenario.start.median + scenario.start.provision
        self._assumed_start = usual if assumed_start is None else assumed_start
        self._expected: LoadShape = mean_shape(scenario.arrivals)
        self._shape = ShapeMemory()
        self._history = LoadHistory()
        self._memory = BreakEvenMemory()
        self._counted = 0.0
        self.choice: RouteChoice | None = None
        """The last decision."""
        self.changes: list[tuple[float, Target]] = []
        """Seconds of the run at which the target changed, the first choice included."""

    @property
    def name(self) -> str:
        """Name in reports."""
        return "lowest cost"

    @property
    def reason(self) -> str:
        """Reason code of the last decision; empty before the first."""
        return self.choice.reason.code if self.choice is not None else ""

    @property
    def interval(self) -> float:
        """Seconds between two decisions."""
        return self._interval

    def begin(self) -> Order:
        """Return where requests go until the first decision."""
        return self._carry_out(self._decide(0.0, self._scenario.initial, 0), 0)

    def order(self, signals: Signals, offered: Offered) -> Order:
        """Decide."""
        arrivals = 0
        if signals.known:
            arrivals = round(offered.requests - self._counted)
            self._counted = offered.requests
            self._count(signals.time, offered)
        own = self._fleet.size_for(signals, arrivals)
        choice = self._decide(signals.time, signals.ready, signals.pending)
        return self._carry_out(choice, own)

    def _count(self, now: float, offered: Offered) -> None:
        self._history = count_arrivals(self._history, now, offered.requests, self._start_time)
        reading = GatewayReading(
            now,
            answers={KEY: offered.requests},
            output_tokens={KEY: offered.output_tokens},
            input_tokens={KEY: offered.input_tokens},
        )
        self._shape = observe_shape(self._shape, reading, KEY)

    @property
    def _start_time(self) -> float:
        return self._fleet.start_time or self._assumed_start

    def _decide(self, now: float, ready: int, pending: int) -> tuple[RouteChoice, int]:
        scenario, terms, start = self._scenario, self._terms, self._start_time
        route = RouteInput(
            name=KEY,
            mix=mean_request(self._shape, self._expected),
            load=expect_load(self._history, now, start),
            own=(OwnTarget(KEY, scenario.capacity, terms.fleet_quality),),
            providers=tuple(ProviderTarget(api.name, api.price, api.quality) for api in terms.providers),
            minimum_quality=terms.minimum_quality,
        )
        deployment = DeploymentInput(
            name=KEY,
            price=scenario.price,
            minimum=scenario.minimum,
            maximum=scenario.maximum,
            serving=ready,
            present=ready + pending,
            start_time=start,
            missed=self._fleet.missed,
        )
        data = BreakEvenInput((route,), (deployment,))
        choice, self._memory = decide_targets(data, self._memory, now, self._policy)
        self.choice = choice.routes[KEY]
        target = self.choice.target
        if target is not None and (not self.changes or self.changes[-1][1] != target):
            self.changes.append((now, target))
        return self.choice, choice.deployments[KEY].replicas

    def _carry_out(self, decided: tuple[RouteChoice, int], own: int) -> Order:
        choice, asked = decided
        if choice.target is None:
            raise RuntimeError(f"the decision refused: {choice.reason.message}")
        shares = [(share.target, share.part) for share in choice.shares]
        return Order(shares, max(asked, own) if choice.target.own else asked)
