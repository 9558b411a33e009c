"""A planner that knows every arrival and its length: the bar for every rule that does not.

It picks whole replicas for each minute. A replica that serves from t is billed from t less the start time, a leaving
one until it has drained, as for everybody. The cheapest schedule that attains the target is looked for in four steps:

1. A model says for each minute and each number of replicas how many requests would miss: the flow of the real arrivals
   through so many replicas, with the curve of attainment measured on these very arrivals (`flow.py`).
2. Dynamic programming finds, for a price of a missed request, the schedule that is cheapest in all: replica-seconds,
   start and drain of each change, and misses. The price is found by bisection, and what a schedule attains is always
   that of the simulator, never the model's.
3. The schedule and those with a few replicas more and fewer are played, which gives the true misses near the schedule;
   with these the second step is done again.
   Where a schedule misses the target by little, and those that attain it cost far more, it is raised where it misses
   most: by a start from too few replicas, say, that more of them at once would shorten.
4. One replica is taken from consecutive minutes, or also given to others in exchange, as long as what is played attains
   the target (`neighbours.py` says which changes are worth a try).

The result is a schedule that exists and was played, so the true optimum costs at most as much. How much less is not
proven: minutes influence each other in ways that no sum over minutes holds. On instances that are small enough to try
every schedule it is compared with the true optimum in the tests.

What it does not know: how long each start takes. It reckons with the median, like the rules that learn it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain, islice, product

import numpy as np

from modelyard.simulator.flow import AttainmentCurve, fit_curve, flow_of
from modelyard.simulator.fluidlevels import mix_of, pace
from modelyard.simulator.fluidload import FluidLoad
from modelyard.simulator.neighbours import Neighbours, Terms, steady_misses
from modelyard.simulator.run import run
from modelyard.simulator.scenario import Floats, Integers, Outcome, Scenario
from modelyard.simulator.schedule import PERIOD, Misses, Schedule, drain_seconds, schedule_for

TARGET = 0.99
"""Share of requests that the schedule must attain."""
TRIALS = 24
"""Changes of the schedule that are played at the end."""
SAME_ATTAINMENT = 1e-3
"""Where none attains the target, the bar is the highest attainment that was found; of those that attain as much but for
this the cheapest."""
_CALIBRATION = (0.5, 0.65, 0.8, 1.0, 1.25)
"""Fleets that the curve of attainment is measured with: capacity over mean load."""
NEAR = 2e-3
"""Share of requests by which a schedule that is raised misses the target at most."""
FAR = 0.9
"""What it costs at most, over the cheapest that attains the target."""
_RAISES = (1.5, 2.0, 3.0)
"""Times the replicas that it has where it misses most."""
_WIDTHS = (1, 3)
"""Periods that are raised together."""
_WORST = 3
"""Places where that is tried, and how often one after another."""
_BUDGETS = (1e-4, 0.9)
"""Between these shares of misses, as the model sees them, the budget is looked for."""
_PRICES = (1e-4, 1e7)
"""Replica-seconds for a missed request: between these the price is looked for."""

Player = Callable[[Scenario, "Schedule"], Outcome]


@dataclass(frozen=True, slots=True)
class Plan:
    """What the planner found."""

    serving: Integers
    """Replicas in each period."""
    outcome: Outcome
    """Of the simulator under this schedule."""
    reached: bool
    """Whether the target is attained; if not, this is the highest attainment that was found, and the bar."""
    runs: int
    """Runs of the simulator that it took."""


def plan(
    scenario: Scenario,
    *,
    target: float = TARGET,
    rounds: int = 2,
    steps: int = 6,
    trials: int = TRIALS,
    player: Player = run,
    flow: tuple[FluidLoad, AttainmentCurve] | None = None,
    curve: AttainmentCurve | None = None,
) -> Plan:
    """Find the cheapest schedule that attains the target in the simulator.

    `rounds`: how often the misses near the schedule are measured; `steps`: schedules played in each bisection;
    `trials`: changes of the schedule played at the end;
    `player`: plays a schedule; `flow`: the load and the curve of attainment where `player` is the fluid model and
    not the simulator, instead of the scenario's arrivals and a curve measured on them;
    `curve`: one that was measured on other arrivals of the same load, which spares five runs.
    Raises ValueError for a load without requests.
    """
    return _Planner(scenario, target, steps, player, flow, curve).plan(rounds, trials)


class _Planner:
    def __init__(
        self,
        scenario: Scenario,
        target: float,
        steps: int,
        player: Player,
        flow: tuple[FluidLoad, AttainmentCurve] | None,
        curve: AttainmentCurve | None,
    ) -> None:
        requests = flow[0].requests if flow else len(scenario.arrivals)
        if not requests:
            raise ValueError(f"{scenario.name} has no requests to plan for")
        self._scenario, self._target, self._steps, self._player = scenario, target, steps, player
        self._requests, self._flow, self._curve = requests, flow, curve
        duration = flow[0].duration if flow else scenario.arrivals.duration
        self._periods = max(1, math.ceil(duration / PERIOD - 1e-9))
        self._lead = scenario.start.longest
        self._played: dict[bytes, tuple[Integers, Outcome]] = {}

    def plan(self, rounds: int, trials: int) -> Plan:
        load = self._flow[0] if self._flow else flow_of(self._scenario.arrivals)
        curve = self._flow[1] if self._flow else self._curve or self._calibrate(load)
        misses = predicted_misses(self._scenario, load, curve, self._periods)
        self._settle(misses)
        for _ in range(rounds):
            self._settle(self._measure(self._chosen[0]))
        if trials:
            # Working out which changes are worth a try takes longer than many runs where there are 20,000 periods.
            self._improve(load, curve, trials)
        serving, outcome = self._chosen
        return Plan(serving, outcome, outcome.attainment >= self._target, len(self._played))

    @property
    def _goal(self) -> float:
        """What the schedule is to attain: the target, or nearly the most that was found."""
        most = max(outcome.attainment for _, outcome in self._played.values())
        return self._target if most >= self._target else most - SAME_ATTAINMENT

    @property
    def _chosen(self) -> tuple[Integers, Outcome]:
        """The cheapest schedule of those played that attains it; of equals the one that attains the most."""
        goal = self._goal
        able = [played for played in self._played.values() if played[1].attainment >= goal]
        return min(able, key=lambda played: (played[1].replica_seconds, -played[1].attainment))

    def _play(self, serving: Integers) -> Outcome:
        key = serving.tobytes()
        if key not in self._played:
            self._played[key] = serving, self._player(self._scenario, Schedule(serving, self._lead))
        return self._played[key][1]

    def _calibrate(self, load: FluidLoad) -> AttainmentCurve:
        scenario = self._scenario
        mean = load.rate.mean() / scenario.capacity
        counts = sorted({self._bounded(math.ceil(mean * factor)) for factor in _CALIBRATION})
        runs = [(load, self._play(np.full(self._periods, count))) for count in counts]
        return fit_curve(scenario.engine, scenario.objective, runs)

    def _bounded(self, count: int) -> int:
        return min(max(count, self._scenario.minimum, 1), self._scenario.maximum)

    def _improve(self, load: FluidLoad, curve: AttainmentCurve, trials: int) -> None:
        """Play schedules near the best one as long as one is better, no more than so many."""
        scenario = self._scenario
        least, most = scenario.minimum, min(scenario.maximum, 2 * max(int(self._chosen[0].max()), 1))
        terms = Terms(
            PERIOD, self._lead, min(scenario.drain, drain_seconds(scenario)), least, most, scenario.initial
        )
        speed = pace(scenario.engine, load, mix_of(load, scenario.arrivals))
        near = Neighbours(load, speed, curve, scenario.objective.inter_token, terms, self._periods)
        left, better = len(self._played) + trials, True
        while better:
            serving, outcome = self._chosen
            room = outcome.attained - self._goal * self._requests
            ways = [near.cheaper(serving, room)]
            if outcome.attainment < self._target:
                # More attainment is worth more than a lower cost; half of what is left is for it.
                ways.insert(0, islice(near.better(serving), (left - len(self._played)) // 2))
            better = False
            for changed in chain(*ways):
                if len(self._played) >= left:
                    return
                self._play(changed)
                if self._chosen[0] is not serving:
                    better = True
                    break

    def _settle(self, misses: Misses) -> None:
        """Search, and where what is near the target costs far less, raise the cheapest of that."""
        self._search(misses, self._target)
        near = self._near()
        if near is not None and near[1].replica_seconds <= FAR * self._chosen[1].replica_seconds:
            self._search(misses, self._target - NEAR)
            self._raise(*(self._near() or near))

    def _near(self) -> tuple[Integers, Outcome] | None:
        """Return the cheapest schedule of those played that misses the target by little; None: there is none."""
        near = [played for played in self._played.values() if 0 < self._target - played[1].attainment <= NEAR]
        return min(near, key=lambda played: played[1].replica_seconds, default=None)

    def _raise(self, serving: Integers, outcome: Outcome) -> None:
        """Play a schedule with more replicas where it misses, until it attains the target or that gains nothing."""
        first = math.ceil((self._lead + Schedule(serving, self._lead).interval) / PERIOD)
        for _ in range(_WORST):
            missed = missed_per_period(outcome, self._periods)
            worst = [int(place) for place in np.argsort(-missed, kind="stable")[:_WORST] if missed[place]]
            # Before the first start can serve there is nothing to raise.
            places = dict.fromkeys(max(place, first) for place in worst)
            ways = product(places, _WIDTHS, _RAISES)
            raised = [self._shifted(_raised(serving, *way), 0) for way in ways]
            tried = [(value, self._play(value)) for value in raised]
            best = max(
                tried, key=lambda played: (played[1].attained, -played[1].replica_seconds), default=None
            )
            if best is None or best[1].attained <= outcome.attained or best[1].attainment >= self._target:
                return
            serving, outcome = best

    def _search(self, misses: Misses, target: float) -> None:
        """Bisect on the share of misses that the model may see, until the simulator attains a target."""
        low, high = _BUDGETS
        budget, requests = 1 - self._target, self._requests
        for _ in range(self._steps):
            serving = self._cheapest(misses, budget * requests)
            if self._play(serving).attainment >= target:
                low = budget
                budget = min(2 * budget, math.sqrt(low * high))
            else:
                high = budget
                budget = max(budget / 2, math.sqrt(low * high))

    def _cheapest(self, misses: Misses, budget: float) -> Integers:
        """Return the cheapest schedule whose misses, as the model sees them, are within a budget."""
        low, high = _PRICES
        best, _ = schedule_for(self._scenario, misses, high, self._lead)
        for _ in range(30):
            price = math.sqrt(low * high)
            serving, missed = schedule_for(self._scenario, misses, price, self._lead)
            if missed <= budget:
                best, high = serving, price
            else:
                low = price
        return best

    def _measure(self, serving: Integers) -> Misses:
        """Play a schedule, and with a few replicas more and fewer, and return what missed in each period."""
        step = max(1, round(0.04 * float(serving.mean())))
        offsets = (-2 * step, -step, 0, step)
        played = {offset: self._shifted(serving, offset) for offset in offsets}
        outcomes = {
            offset: missed_per_period(self._play(value), self._periods) for offset, value in played.items()
        }
        counts = np.arange(int(played[offsets[0]].min()), int(played[step].max()) + 1)
        return interpolate(counts, played, outcomes)

    def _shifted(self, serving: Integers, offset: int) -> Integers:
        return np.clip(serving + offset, self._scenario.minimum, self._scenario.maximum)


def _raised(serving: Integers, place: int, width: int, times: float) -> Integers:
    """Return a schedule with so many times the replicas in so many periods from a place on."""
    window = slice(place, place + width)
    raised = serving.copy()
    raised[window] = np.maximum(raised[window], math.ceil(times * int(raised[window].max())))
    return raised


def predicted_misses(scenario: Scenario, load: FluidLoad, curve: AttainmentCurve, periods: int) -> Misses:
    """Return the misses that the flow of a load predicts for every number of replicas that may be needed."""
    least = scenario.minimum
    most = min(scenario.maximum, math.ceil(1.5 * float(load.rate.max()) / scenario.capacity) + 2)
    counts = np.arange(least, max(most, scenario.initial, least) + 1)
    speed = pace(scenario.engine, load, mix_of(load, scenario.arrivals))
    inter_token = scenario.objective.inter_token
    table = np.zeros((periods, len(counts)))
    for column, count in enumerate(counts):
        table[:, column] = steady_misses(load, speed, curve, inter_token, int(count), PERIOD, periods)
    # More replicas never miss more; the curve's noise is not to be exploited.
    return Misses(counts, np.minimum.accumulate(table, axis=1))


def missed_per_period(outcome: Outcome, periods: int) -> Floats:
    """Return the requests of each period that missed in a run."""
    step = outcome.time[1] - outcome.time[0] if len(outcome.time) > 1 else PERIOD
    missed = np.nan_to_num(outcome.arrival_rate * step * (1 - outcome.attained_share))
    place = np.minimum((outcome.time / PERIOD).astype(np.int64), periods - 1)
    counted: Floats = np.bincount(place, missed, minlength=periods).astype(np.float64)
    return counted


def interpolate(counts: Integers, played: Mapping[int, Integers], missed: Mapping[int, Floats]) -> Misses:
    """Return the misses of each period from those of a few schedules, linearly between; below all: not to be chosen."""
    offsets = sorted(played)
    replicas = np.stack([played[offset] for offset in offsets])
    values = np.minimum.accumulate(np.stack([missed[offset] for offset in offsets]), axis=0)
    table = np.empty((replicas.shape[1], len(counts)))
    for period in range(len(table)):
        table[period] = np.interp(counts, replicas[:, period], values[:, period], left=np.inf)
    return Misses(counts, table)
