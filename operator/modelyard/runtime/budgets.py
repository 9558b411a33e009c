"""The LLMBudgets of the gateway's namespace: read from time to time, judged with every reading of the ledger.

What follows for routes and sizes stands in the fleet, where the publisher and the decisions find it. Nothing is
published and nothing decided anew while nothing changes. What was read last stays valid while the API server cannot be
reached.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from modelyard.api.llmbudget import LLMBudget, LLMBudgetSpec, LLMBudgetStatus
from modelyard.api.meta import ObjectMeta
from modelyard.core.budget.decide import limit_sizes
from modelyard.core.budget.judge import SpendSums, Standing, judge_budgets, stale_after
from modelyard.core.budget.status import KnownNames, build_budget_status
from modelyard.core.ledger.holdings import find_holdings
from modelyard.core.reasons import Code, Reason
from modelyard.core.spend import Spend
from modelyard.kube.client import ApiError, KubeClient
from modelyard.kube.projections import project_object
from modelyard.kube.resources import LLM_BUDGETS
from modelyard.runtime.administered import NamespaceReader
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.metrics import BUDGET_SHARE
from modelyard.runtime.queue import WorkQueue
from modelyard.runtime.settings import OperatorSettings

logger = logging.getLogger(__name__)

NOT_READABLE = "(not readable)"
"""Stands for the names of budgets that the operator may not read. No object can have this name."""


class BudgetKeeper:
    """Keeps how budgets stand, what follows from it, and their status."""

    def __init__(
        self,
        client: KubeClient,
        fleet: Fleet,
        queue: WorkQueue,
        settings: OperatorSettings,
        on_change: Callable[[], None],
    ) -> None:
        self._client = client
        self._fleet = fleet
        self._queue = queue
        self._settings = settings
        self._on_change = on_change
        self._namespace = settings.render.gateway.namespace
        self._reader = NamespaceReader(client, self._namespace, LLM_BUDGETS)
        self._budgets: dict[str, LLMBudget] = {}
        self._unread: tuple[Standing, ...] = ()
        """Budgets of which nothing could ever be read: whatever they are about is not known."""
        self._shown: set[str] = set()
        """Budgets that have a figure in the metrics."""
        self._sums: SpendSums | None = None
        self._judged: tuple[Spend | None, dict[str, LLMBudget], float] | None = None
        """What was judged last, and the Unix time from which on time alone makes a difference."""

    async def start(self) -> None:
        """Read everything once: a table without budgets would open what they have closed."""
        await self._refresh()

    async def run(self) -> None:
        """Read and judge until cancelled."""
        due = time.monotonic() + self._settings.provider_interval
        while True:
            await asyncio.sleep(self._pause())
            if time.monotonic() < due:
                self.judge()
                continue
            due = time.monotonic() + self._settings.provider_interval
            try:
                await self._refresh()
            except ApiError as error:
                logger.warning("Budgets cannot be read, what is known stays: %s", error)
                self.judge()

    def judge(self, now: float | None = None) -> None:
        """Work out how the budgets stand, and pass on what that changes. Cheap where nothing can have changed."""
        now = time.time() if now is None else now
        fleet = self._fleet
        seen = self._judged
        if seen is not None and seen[0] is fleet.spend and seen[1] is self._budgets and now < seen[2]:
            return
        self._sums = SpendSums(fleet.spend, self._sums)
        # Large pages are read less often.
        after = stale_after(max(self._settings.read_interval, fleet.read_pace))
        standings = judge_budgets(self._budgets.values(), fleet.spend, now, self._sums, after)
        standings += self._unread
        ends = [item.period.end for item in standings if item.period is not None]
        stale = [fleet.spend.time + after] if fleet.spend is not None else []
        until = min((moment for moment in (*ends, *stale) if moment > now), default=math.inf)
        self._judged = (fleet.spend, self._budgets, until)
        changed = _essence(standings) != _essence(fleet.budgets)
        fleet.budgets = standings
        for standing in standings:
            if standing.share is not None:
                BUDGET_SHARE.labels(budget=standing.budget.name).set(standing.share)
                self._shown.add(standing.budget.name)
        limits = limit_sizes(fleet.deployment_keys(), standings)
        before, fleet.limits = fleet.limits, limits
        for key in before.keys() | limits.keys():
            if before.get(key) != limits.get(key):
                self._queue.add(key)
        if changed:
            self._on_change()

    def _pause(self) -> float:
        """Return the seconds until the next look: sooner where a period ends, whose budget opens then."""
        now = time.time()
        ends = [item.period.end - now for item in self._fleet.budgets if item.period is not None]
        return max(min(self._settings.read_interval, *ends), 0.0) if ends else self._settings.read_interval

    async def _refresh(self) -> None:
        """Read all budgets, judge them, write their status.

        Raises ApiError where the API server refuses or cannot be reached.
        """
        budgets = {budget.name: budget for budget in await self._list()}
        for name in self._shown - budgets.keys():
            BUDGET_SHARE.remove(name)
        self._shown &= budgets.keys()
        self._budgets = budgets
        now = time.time()
        self.judge(now)
        fleet = self._fleet
        held = find_holdings(fleet.all_pods(), fleet.accelerators(), fleet.plans)
        unpriced = {item.deployment for item in held if item.price is None}
        known = KnownNames(fleet.route_keys(), fleet.deployment_keys(), fleet.providers, unpriced)
        for standing in self._fleet.budgets:
            if standing.budget.name == NOT_READABLE:
                continue
            budget, status = standing.budget, build_budget_status(standing, known, now)
            await self._reader.write_status(budget.metadata, budget.status, status)

    async def _list(self) -> list[LLMBudget]:
        """Return the budgets that can be read; none where the kind is not there.

        What was never read goes to `_unread`.
        """
        bodies, error = await self._reader.list_bodies(known=bool(self._budgets), consequence=_consequence)
        if error is not None:
            self._unread = (_unread({"name": NOT_READABLE}, str(error)),) if error.status == 403 else ()
            return []
        found, unread = [], []
        for body in bodies:
            view = project_object(LLMBudget, body)
            name = body["metadata"]["name"]
            if view.object is not None:
                found.append(view.object)
                continue
            # One that cannot be read any more still limits as it did.
            if name in self._budgets:
                logger.error("LLMBudget %s cannot be read, and acts as before: %s", name, view.error)
                found.append(self._budgets[name])
                continue
            logger.error("LLMBudget %s cannot be read, so providers get no requests: %s", name, view.error)
            unread.append(_unread(body["metadata"], view.error, body.get("status")))
        self._unread = tuple(unread)
        return found


def _consequence(error: ApiError) -> str:
    """Say what follows where no budget can be read: a right that is missing may hide some."""
    return ", so providers get no requests" if error.status == 403 else ", so there are none"


def _unread(metadata: Mapping[str, Any], error: str, status: Mapping[str, Any] | None = None) -> Standing:
    """Return how a budget stands of which only the name is known: it may be about any request."""
    try:
        known = LLMBudgetStatus.model_validate(status or {})
    except ValidationError:
        known = LLMBudgetStatus()
    kept = {name: metadata[name] for name in ("name", "namespace", "generation") if name in metadata}
    budget = LLMBudget(
        metadata=ObjectMeta.model_validate({"namespace": "", **kept}),
        spec=LLMBudgetSpec(amount="1", period="Month"),
        status=known,
    )
    return Standing(budget, None, None, None, Reason(Code.INVALID, f"it cannot be read: {error}"))


def _essence(standings: tuple[Standing, ...]) -> list[object]:
    """Return what routes depend on: what is reached and what is not known, but not how much is spent."""
    return [
        (
            item.budget.name,
            item.budget.spec,
            item.exhausted,
            item.soft_reached,
            item.unknown is not None,
            item.period if item.exhausted else None,
        )
        for item in standings
    ]
