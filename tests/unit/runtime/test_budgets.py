"""What a change of budgets sets in motion, and when."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, cast

import pytest

from modelyard.api.meta import wire
from modelyard.core.budget.decide import apply_budgets
from modelyard.core.budget.judge import STALE_AFTER
from modelyard.core.budget.limits import SizeLimit
from modelyard.core.budget.rules import divide
from modelyard.core.ledger.usage import NodeCounts, Use, spend_key
from modelyard.core.reasons import Code
from modelyard.core.routing import Route, WeightedTarget
from modelyard.core.spend import HOUR, Spend, SpendKey, SpendLine
from modelyard.kube.client import ApiError, KubeClient
from modelyard.kube.informers import Indices
from modelyard.runtime import budgets
from modelyard.runtime import ledger as ledgers
from modelyard.runtime.budgets import BudgetKeeper
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.ledger import LedgerKeeper
from modelyard.runtime.queue import WorkQueue
from modelyard.runtime.settings import OperatorSettings
from tests.unit.core.budgetcases import NOW, budget
from tests.unit.runtime.ledgerstage import Server


class Queue:
    """Keeps the keys that are asked for."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def add(self, key: str) -> None:
        self.keys.append(key)


class Keeper:
    """A keeper without an API server, and what it asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *held: Any, client: Any = None) -> None:
        self.fleet, self.queue, self.changes = Fleet(), Queue(), 0
        monkeypatch.setattr(self.fleet, "deployment_keys", lambda: ["team/own", "other/own"])
        self.keeper = BudgetKeeper(
            cast("KubeClient", client),
            self.fleet,
            cast("WorkQueue", self.queue),
            OperatorSettings(),
            self._changed,
        )
        self.keeper._budgets = {item.name: item for item in held}

    def _changed(self) -> None:
        self.changes += 1

    def judge(self, dollars: float | None, now: float = NOW) -> int:
        """Judge once; return how often something was published so far."""
        if dollars is not None:
            key = SpendKey(namespace="team", target="team/own")
            self.fleet.spend = Spend(now, (SpendLine(int(now - now % HOUR), key, "Own", dollars),))
        self.keeper.judge(now)
        return self.changes


def test_only_what_is_reached_is_published(monkeypatch):
    keeper = Keeper(monkeypatch, budget(amount="10"))
    assert [keeper.judge(dollars) for dollars in (None, 1, 2, 9.99, 10, 11, 12)] == [1, 2, 2, 2, 3, 3, 3]


def test_deployments_are_decided_anew_where_their_limit_changed(monkeypatch):
    soft = {"at": "0.5", "action": "LowerMax", "maxShare": "0.5"}
    keeper = Keeper(monkeypatch, budget(amount="10", soft=soft, scope={"namespaces": ["team"]}))
    keeper.judge(1)
    assert keeper.queue.keys == []
    keeper.judge(5)
    keeper.judge(6)
    assert keeper.queue.keys == ["team/own"]
    assert keeper.fleet.limits.keys() == {"team/own"}
    assert keeper.fleet.limits["team/own"] != SizeLimit()
    keeper.keeper._budgets = {}
    keeper.judge(7)
    assert keeper.queue.keys == ["team/own", "team/own"]


def test_time_alone_opens_a_period_and_makes_spend_unknown(monkeypatch):
    keeper = Keeper(monkeypatch, budget(amount="10", period="Day"))
    assert keeper.judge(10) == 1
    (standing,) = keeper.fleet.budgets
    assert standing.period is not None
    end = standing.period.end
    keeper.judge(None, NOW + STALE_AFTER + 1)
    assert keeper.fleet.budgets[0].unknown is not None
    keeper.fleet.spend = replace(keeper.fleet.spend, time=end - 1)
    keeper.judge(None, end - 0.5)
    assert keeper.fleet.budgets[0].exhausted
    monkeypatch.setattr(budgets.time, "time", lambda: end - 0.5)
    assert keeper.keeper._pause() == pytest.approx(0.5), "it looks when the period ends"
    keeper.judge(None, end)
    assert not keeper.fleet.budgets[0].exhausted


def test_nothing_is_added_up_where_nothing_can_have_changed(monkeypatch):
    keeper = Keeper(monkeypatch, budget(amount="10"))
    keeper.judge(3)
    standings = keeper.fleet.budgets
    keeper.judge(None, NOW + 5)
    assert keeper.fleet.budgets is standings


async def test_budgets_are_told_of_every_round_and_how_far_the_readings_go(monkeypatch):
    """Spend is complete up to the newest reading of all Envoys, whatever the clock says."""
    server = Server()
    keeper = Keeper(monkeypatch, budget(amount="10"))
    told: list[float] = []

    def judge() -> None:
        assert keeper.fleet.spend is not None
        told.append(keeper.fleet.spend.time)

    keeper.fleet.indices = Indices(deployments={}, pods={}, accelerators={})
    ledger = LedgerKeeper(server, keeper.fleet, OperatorSettings(), judge)
    monkeypatch.setattr(ledgers.time, "time", lambda: NOW - 1)
    await ledger.start()
    assert told == [NOW - 1], "nothing is written, so nothing was spent"
    keeper.fleet.counted_until = NOW
    keeper.fleet.counts["x"] = (
        NodeCounts(NOW, 100.0, {spend_key("", "team/chat@route", "team/own"): Use(requests=1)}),
    )
    await ledger.look(NOW + 0.5)
    await ledger.round(NOW + 1)
    # One Envoy cannot be read: there is no new reading of all.
    await ledger.look(NOW + 5)
    await ledger.round(NOW + 11)
    assert told[1:] == [NOW, NOW, NOW]

    keeper.fleet.spend, keeper.fleet.counted_until = None, 0.0
    again = LedgerKeeper(server, keeper.fleet, OperatorSettings(), judge)
    await again.start()
    assert told[4:] == [NOW + 1], "up to what is written"
    await again.round(NOW + 40)
    assert told[5:] == [NOW + 1], "no Envoy has been read since"


class Listing:
    """An API server that lists LLMBudgets, or refuses to."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.error: ApiError | None = None
        self.written: list[dict[str, Any]] = []

    async def list_pages(self, *_: Any, **__: Any) -> AsyncIterator[dict[str, Any]]:
        if self.error is not None:
            raise self.error
        for body in self.bodies:
            yield body

    async def apply(self, _resource: Any, manifest: dict[str, Any], *_: Any) -> None:
        self.written.append(manifest)


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> tuple[Keeper, Listing]:
    listing = Listing()
    keeper = Keeper(monkeypatch, client=listing)
    monkeypatch.setattr(keeper.fleet, "route_keys", list)
    keeper.fleet.spend = Spend(NOW, ())
    monkeypatch.setattr(budgets.time, "time", lambda: NOW)
    return keeper, listing


def written(**spec: Any) -> dict[str, Any]:
    """Return a budget as the API server lists it."""
    body = wire(budget("new"))
    body["metadata"] |= {"uid": "1", "resourceVersion": "1"}
    return body | {"spec": body["spec"] | spec}


def reached(keeper: Keeper) -> list[str]:
    table = Route(
        "team/chat@route", ("chat",), (WeightedTarget("team/own"), WeightedTarget("provider:acme/large"))
    )
    (limited,) = apply_budgets((table,), keeper.fleet.budgets, {"provider:acme/large": 0.01})
    rest, _ = divide(limited)
    return [target.upstream for target in rest.targets]


async def test_budgets_that_may_not_be_read_close_providers_until_they_are(listed) -> None:
    keeper, listing = listed
    listing.error = ApiError(403, "Forbidden", "llmbudgets is forbidden")
    await keeper.keeper.start()
    assert reached(keeper) == ["team/own"]
    assert listing.written == []
    listing.error = None
    await keeper.keeper._refresh()
    assert reached(keeper) == ["team/own", "provider:acme/large"]


async def test_a_kind_that_is_not_there_means_no_budgets(listed) -> None:
    keeper, listing = listed
    listing.error = ApiError(404, "NotFound", "the server could not find the requested resource")
    await keeper.keeper.start()
    assert reached(keeper) == ["team/own", "provider:acme/large"]


async def test_a_budget_that_was_never_understood_closes_providers_and_says_so(listed) -> None:
    keeper, listing = listed
    body = written(period="Fortnight")
    listing.bodies = [body]
    await keeper.keeper.start()
    assert reached(keeper) == ["team/own"]
    (manifest,) = listing.written
    ready = manifest["status"]["conditions"][0]
    assert (ready["type"], ready["status"], ready["reason"]) == ("Ready", "False", Code.INVALID)
    listing.bodies = [body | {"status": manifest["status"]}]
    await keeper.keeper._refresh()
    assert len(listing.written) == 1, "nothing is written where nothing differs"
    # One that was read once acts as it did.
    listing.bodies = [written()]
    await keeper.keeper._refresh()
    assert reached(keeper) == ["team/own", "provider:acme/large"]
    listing.bodies = [body]
    await keeper.keeper._refresh()
    assert reached(keeper) == ["team/own", "provider:acme/large"]
