"""What is held and spent, as metrics for people."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from modelyard.core.ledger.book import Holding
from modelyard.core.ledger.settle import Line
from modelyard.runtime.metrics import GPU_ALLOCATION, GPU_HOURLY_COST, SPEND_DOLLARS


@dataclass(frozen=True, slots=True)
class Sums:
    """What lines of the ledger come to."""

    dollars: Mapping[tuple[int, str], float]
    """US dollars by hour and target."""
    kinds: Mapping[str, str]
    """By target."""


def add_lines(lines: Iterable[tuple[int, Line]]) -> Sums:
    """Return what lines come to, each given with its hour."""
    sums: dict[tuple[int, str], float] = {}
    kinds: dict[str, str] = {}
    for start, line in lines:
        # Shares of tenants move while an hour is open, those of targets only grow.
        key = start, line.key.target
        sums[key] = sums.get(key, 0.0) + line.dollars
        kinds[line.key.target] = line.kind
    return Sums(sums, kinds)


class SpendMetrics:
    """Turns lines of the ledger, which are told again and again, into counters that only grow."""

    def __init__(self) -> None:
        self._told: Mapping[tuple[int, str], float] | None = None
        """US dollars by hour and target; None before the first telling, from which on is counted."""
        self._shown: set[tuple[str, str]] = set()
        """Kinds and targets that have a series."""

    def tell(
        self,
        found: Sums,
        holdings: Iterable[Holding],
        existing: Collection[str] | None = None,
    ) -> None:
        """Take in what the open part of the ledger comes to, and what is held now.

        `existing` are the targets that there are; those that are neither there nor in the lines lose their series.
        None: not known.
        """
        sums, kinds = found.dollars, found.kinds
        before = sums if self._told is None else self._told
        for (start, target), dollars in sums.items():
            new = dollars - before.get((start, target), 0.0)
            if new > 0:
                SPEND_DOLLARS.labels(kind=kinds[target], target=target).inc(new)
                self._shown.add((kinds[target], target))
        self._told = sums
        self._remove_gone({*kinds, *existing} if existing is not None else None)
        self._tell_holdings(holdings)

    def _remove_gone(self, there: Collection[str] | None) -> None:
        gone = {labels for labels in self._shown if there is not None and labels[1] not in there}
        for labels in gone:
            SPEND_DOLLARS.remove(*labels)
        self._shown -= gone

    @staticmethod
    def _tell_holdings(holdings: Iterable[Holding]) -> None:
        counts: dict[tuple[str, ...], int] = {}
        dollars: dict[tuple[str, ...], float] = {}
        for item in holdings:
            labels = tuple(item.deployment.split("/", 1))
            counts[labels] = counts.get(labels, 0) + item.accelerators
            if item.price is not None:
                dollars[labels] = dollars.get(labels, 0.0) + item.price
        # Deployments that are gone leave with their labels.
        for gauge, values in ((GPU_ALLOCATION, counts), (GPU_HOURLY_COST, dollars)):
            gauge.clear()
            for labels, value in values.items():
                gauge.labels(*labels).set(value)
