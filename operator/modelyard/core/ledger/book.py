"""The open part of the ledger: the hour that is counted, and the last counts of every Envoy that it was counted from.

Both are one value, written in one compare-and-swap, so that nothing is counted twice: whoever takes in a reading takes
it in from the counts that it finds written. What is older is settled and never changes again.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from modelyard.core.ledger.settle import Charged, Held, Line, settle
from modelyard.core.ledger.usage import NodeCounts, Use, find_new
from modelyard.core.routing import EXTERNAL_PREFIX
from modelyard.core.spend import HOUR, SpendKey

MAX_NODES = 1000
"""Envoys whose names are kept, the newest."""


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """US dollars per token."""

    input: float
    cached: float
    output: float

    def charge(self, use: Use) -> float:
        """Return what was used in dollars, estimates included."""
        return (
            (use.prompt - min(use.cached, use.prompt)) * self.input
            + min(use.cached, use.prompt) * self.cached
            + use.completion * self.output
            + self.charge_estimated(use)
        )

    def charge_estimated(self, use: Use) -> float:
        """Return the part of the charge that is an estimate."""
        return use.estimated_prompt * self.input + use.estimated_completion * self.output


@dataclass(frozen=True, slots=True)
class Holding:
    """A pod that holds accelerators now."""

    deployment: str
    """`namespace/name` of the LLMDeployment."""
    since: float
    """Unix time from which it counts."""
    accelerators: int
    """1 for a class that is CPU only."""
    price: float | None
    """US dollars per hour for all of them; None: not known."""
    capacity: float
    """Requests per second that it answers within the objective; 0: not known."""


@dataclass(frozen=True, slots=True)
class OpenHour:
    """What is known of one hour so far."""

    start: int
    """Unix time."""
    uses: Mapping[SpendKey, Charged] = field(default_factory=dict)
    held: Mapping[str, Held] = field(default_factory=dict)
    """By `namespace/name` of the LLMDeployment."""


@dataclass(frozen=True, slots=True)
class SettledHour:
    """An hour that is over."""

    start: int
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Ledger:
    """The open part of the ledger."""

    time: float = 0.0
    """Unix time of what was taken in last; 0: nothing yet."""
    nodes: Mapping[str, NodeCounts] = field(default_factory=dict)
    """By the Envoy's node id, which names its pod."""
    hour: OpenHour | None = None
    settled: tuple[SettledHour, ...] = ()
    """Hours that have no object of their own yet, oldest first."""


def take_in(
    ledger: Ledger,
    readings: Mapping[str, tuple[NodeCounts, ...]],
    holdings: Iterable[Holding],
    prices: Mapping[str, TokenPrice],
    now: float,
    forget_before: float = 0.0,
) -> Ledger:
    """Return the ledger with readings taken in.

    `readings` are those of each Envoy that were not taken in yet, oldest first (`keep_reading`); older ones do nothing.
    What was counted belongs to the hour in which it is read; what was held, to the hours in which it was, also those in
    which no operator ran. `prices` are those of providers' models, by `external_key`. Of Envoys that were read
    last before `forget_before` the counts are forgotten.
    """
    time = max(now, ledger.time)
    ledger = _hold(ledger, tuple(holdings), time)
    assert ledger.hour is not None  # noqa: S101  (opened by `_hold`)
    uses = dict(ledger.hour.uses)
    nodes = dict(ledger.nodes)
    for node, reading in ((node, reading) for node, found in readings.items() for reading in found):
        before = nodes.get(node)
        if before is not None and before.time >= reading.time:
            continue
        for key, use in find_new(before, reading).items():
            uses[key] = _charge(uses.get(key), key, use, prices)
        nodes[node] = reading
    return replace(ledger, hour=replace(ledger.hour, uses=uses), nodes=_forget(nodes, forget_before))


def open_lines(ledger: Ledger) -> Iterator[tuple[int, Line]]:
    """Yield what the open part says, with the hour that each line belongs to."""
    for settled in ledger.settled:
        for line in settled.lines:
            yield settled.start, line
    if ledger.hour is not None:
        for line in settle(ledger.hour.uses, ledger.hour.held):
            yield ledger.hour.start, line


def _hold(ledger: Ledger, holdings: tuple[Holding, ...], time: float) -> Ledger:
    """Return the ledger with the hour of `time` open, and all that was held up to then."""
    begin = ledger.time or time
    current = int(time // HOUR * HOUR)
    hour = ledger.hour or OpenHour(int(begin // HOUR * HOUR))
    settled = list(ledger.settled)
    while True:
        end = min(time, hour.start + HOUR)
        hour = replace(hour, held=_add_held(hour.held, holdings, begin, end))
        if hour.start >= current:
            break
        lines = settle(hour.uses, hour.held)
        if lines:
            settled.append(SettledHour(hour.start, lines))
        begin = max(begin, float(end))
        hour = OpenHour(hour.start + HOUR)
    return replace(ledger, time=time, hour=hour, settled=tuple(settled))


def _add_held(
    held: Mapping[str, Held], holdings: tuple[Holding, ...], begin: float, end: float
) -> Mapping[str, Held]:
    # Plain numbers first: a fleet has thousands of pods.
    sums: dict[str, list[float]] = {}
    for item in holdings:
        hours = max(end - max(begin, item.since), 0.0) / HOUR
        if hours:
            row = sums.setdefault(item.deployment, [0.0] * 4)
            row[0] += hours * item.accelerators
            row[1] += hours * item.price if item.price is not None else 0.0
            row[2] += hours * item.accelerators if item.price is None else 0.0
            row[3] += hours * HOUR * item.capacity
    return {**held, **{name: held.get(name, Held()) + Held(*row) for name, row in sums.items()}}


def _charge(before: Charged | None, key: SpendKey, use: Use, prices: Mapping[str, TokenPrice]) -> Charged:
    charged = Charged(use)
    if key.target.startswith(EXTERNAL_PREFIX):
        price = prices.get(key.target)
        charged = (
            Charged(use, unpriced=True)
            if price is None
            else Charged(use, price.charge(use), price.charge_estimated(use))
        )
    return charged if before is None else before + charged


def _forget(nodes: Mapping[str, NodeCounts], before: float) -> dict[str, NodeCounts]:
    kept = {node: replace(last, counts=None) if last.time < before else last for node, last in nodes.items()}
    newest = sorted(kept, key=lambda node: (kept[node].time, node))[-MAX_NODES:]
    return {node: kept[node] for node in sorted(newest)}
