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
from itertools import chain, islice

import numba
import numpy as np

from modelyard.simulator.flow import AttainmentCurve, fit_curve, flow_of
from modelyard.simulator.fluidlevels import mix_of, pace
from modelyard.simulator.fluidload import FluidLoad
from modelyard.simulator.neighbours import Neighbours, Terms, steady_misses
from modelyard.simulator.run import run
from modelyard.simulator.scenario import Floats, Integers, Outcome, Scenario, Signals

PERIOD = 60.0
"""Seconds for which it holds a number of replicas."""
TARGET = 0.99
"""Share of requests that the schedule must attain."""
TRIALS = 24
"""Changes of the schedule that are played at the end."""
SAME_ATTAINMENT = 1e-3
"""Where none attains the target, the bar is the highest attainment that was found; of those that attain as much but for
this the cheapest."""
_CALIBRATION = (0.5, 0.65, 0.8, 1.0, 1.25)
"""Fleets that the curve of attainment is measured with: capacity over mean load."""
_BUDGETS = (1e-4, 0.9)
"""Between these shares of misses, as the model sees them, the budget is looked for."""
_PRICES = (1e-4, 1e7)
"""Replica-seconds for a missed request: between these the price is looked for."""

Player = Callable[[Scenario, "Schedule"], Outcome]


class Schedule:
    """A policy that follows a plan: how many replicas serve in each period."""

    name = "clairvoyant"

    def __init__(self, serving: Integers, lead: float, period: float = PERIOD) -> None:
        """`lead`: seconds that a start is reckoned to take."""
        self.serving = serving
        self._lead = lead
        self._period = period
        # A start must be due at a decision: every divisor of both the period and the lead does.
        self.interval = float(math.gcd(round(period), max(1, round(lead))) if lead else period)

    def decide(self, signals: Signals) -> int:
        """Return the most that serve from now until what starts now serves.

        Fewer in between would be drained only to be started again, and starting takes longer than they are away.
        """
        last = len(self.serving) - 1
        first = min(int(signals.time / self._period + 1e-6), last)
        end = min(int((signals.time + self._lead) / self._period + 1e-6), last)
        return int(self.serving[first : end + 1].max())


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


@dataclass(frozen=True, slots=True)
class Misses:
    """How many requests of each period miss with each number of replicas: rows are periods."""

    counts: Integers
    """Numbers of replicas, rising."""
    table: Floats
    """Infinite: not to be chosen."""


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
        self._search(misses)
        for _ in range(rounds):
            self._search(self._measure(self._chosen[0]))
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
            PERIOD, self._lead, min(scenario.drain, _drain_seconds(scenario)), least, most, scenario.initial
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

    def _search(self, misses: Misses) -> None:
        """Bisect on the share of misses that the model may see, until the simulator attains the target."""
        low, high = _BUDGETS
        budget, requests = 1 - self._target, self._requests
        for _ in range(self._steps):
            serving = self._cheapest(misses, budget * requests)
            if self._play(serving).attainment >= self._target:
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


def schedule_for(scenario: Scenario, misses: Misses, price: float, lead: float) -> tuple[Integers, float]:
    """Return the schedule that is cheapest with so many replica-seconds for each miss, and its misses.

    Dynamic programming over periods and numbers of replicas. A replica more costs a start, one fewer what it takes to
    drain. Before the first start can be over, there are at most the initial replicas.
    """
    counts = misses.counts
    more = counts[None, :] - counts[:, None]
    drain = min(scenario.drain, _drain_seconds(scenario))
    change = np.where(more > 0, more * lead, -more * drain)
    late = np.where(more > 0, np.inf, change)
    first = Schedule(counts, lead).interval
    value = np.where(counts == min(max(scenario.initial, counts[0]), counts[-1]), 0.0, np.inf)
    before = np.zeros(misses.table.shape, dtype=np.int64)
    held: Floats = counts.astype(np.float64) * PERIOD
    stuck = _fill_table(misses.table, held, change, late, value, before, price, lead + first, PERIOD)
    if stuck >= 0:
        raise ValueError(f"{scenario.name}: no number of replicas may be chosen in period {stuck}")
    place = np.empty(len(before), dtype=np.int64)
    place[-1] = int(np.argmin(value))
    for period in range(len(before) - 1, 0, -1):
        place[period - 1] = before[period, place[period]]
    return counts[place], float(misses.table[np.arange(len(place)), place].sum())


@numba.njit(cache=True)
def _fill_table(
    missed: Floats, held: Floats, change: Floats, late: Floats, value: Floats, before: Integers, price: float,
    first: float, seconds: float,
) -> int:  # fmt: skip
    """Go through all periods of so many seconds; return the first in which nothing may be chosen, or -1.

    `value` becomes the cost up to the last period, `before` the choice in the period before that leads to each choice.
    `held`: replica-seconds of each number in a period; `change`, `late`: those of each change of it, the latter while
    nothing that starts can serve yet, before `first`.
    """
    numbers = len(value)
    least = np.empty(numbers)
    for number in range(numbers):
        least[number] = late[number].min()
    for period in range(len(missed)):
        costs = change
        # A measured table may not hold what there is at first; then the start is free to choose.
        if period * seconds < first and np.isfinite(value + least).any():
            costs = late
        latest = np.empty(numbers)
        able = False
        for number in range(numbers):
            best = 0
            total = value[0] + costs[0, number]
            for other in range(1, numbers):
                cost = value[other] + costs[other, number]
                if cost < total:
                    best, total = other, cost
            before[period, number] = best
            lost = missed[period, number]
            latest[number] = (total + held[number]) + (math.inf if math.isinf(lost) else price * lost)
            able = able or math.isfinite(latest[number])
        value[:] = latest
        if not able:
            return period
    return -1


def _drain_seconds(scenario: Scenario) -> float:
    """Return about how long a leaving replica takes to answer what it has: the mean answer, three times."""
    return 3 * float(np.mean(scenario.arrivals.output_tokens)) * scenario.objective.inter_token / 2
