"""What was used and spent, worked out from one look at everything. Nothing here touches the fleet: it runs in a thread.

With thousands of pods and keys this takes longer than an Envoy, or a probe, may wait for the event loop.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.core.ledger.archive import Period, select_counted, spend_lines
from modelyard.core.ledger.book import Holding, Ledger, TokenPrice, open_lines, take_in
from modelyard.core.ledger.holdings import find_holdings
from modelyard.core.ledger.usage import NodeCounts
from modelyard.core.plan import DeploymentPlan
from modelyard.core.snapshot import Pod
from modelyard.core.spend import SpendLine
from modelyard.runtime.spendmetrics import Sums, add_lines


@dataclass(frozen=True, slots=True)
class Known:
    """Everything that is looked at, as it was at one moment."""

    now: float
    """Unix time."""
    ledger: Ledger
    """What is written, without what is archived since."""
    readings: Mapping[str, tuple[NodeCounts, ...]]
    """By node id; those that are written already do nothing."""
    pods: tuple[Pod, ...]
    accelerators: Mapping[str, AcceleratorClass]
    plans: Mapping[str, DeploymentPlan]
    prices: Mapping[str, TokenPrice]
    archives: tuple[Period, ...]
    forget_before: float = 0.0
    """Unix time; counts of Envoys that were read last before it are forgotten."""


@dataclass(frozen=True, slots=True)
class Account:
    """What came of it."""

    ledger: Ledger
    """With everything that was read."""
    holdings: tuple[Holding, ...]
    recent: tuple[SpendLine, ...]
    """What its open part says, as budgets read it."""
    sums: Sums
    """The same, for metrics."""
    counted: tuple[Period, ...]
    """Archives that count besides."""


def draw_up(known: Known) -> Account:
    """Take everything in, and return what it comes to."""
    holdings = find_holdings(known.pods, known.accelerators, known.plans)
    ledger = take_in(known.ledger, known.readings, holdings, known.prices, known.now, known.forget_before)
    return sum_up(ledger, known.archives, holdings)


def sum_up(ledger: Ledger, archives: tuple[Period, ...], holdings: tuple[Holding, ...] = ()) -> Account:
    """Return what a ledger comes to as it is."""
    lines = list(open_lines(ledger))
    recent = tuple(line for start, item in lines for line in spend_lines(start, (item,)))
    counted = tuple(select_counted(frozenset(archives), ledger))
    return Account(ledger, holdings, recent, add_lines(lines), counted)
