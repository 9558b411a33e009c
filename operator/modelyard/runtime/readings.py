"""Reads the gateway's counters every few seconds and hands what they say to the decision.

With thousands of deployments that is a second's work. What needs nothing but values is worked out in a thread; the
decisions, which look at what other tasks write, are made on the event loop in slices.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from itertools import chain

import aiohttp

from modelyard.core.cost import TokenMemory, cost_per_million, observe_tokens, token_rate
from modelyard.core.coststatus import hourly_cost
from modelyard.core.decide import decide_deployment, observe_demand
from modelyard.core.plan import DeploymentPlan
from modelyard.core.routing import EXTERNAL_PREFIX, Route, WeightedTarget, rule_name
from modelyard.core.snapshot import GatewayReading, Snapshot
from modelyard.core.state import Memory
from modelyard.gateway.ads import AdsServer
from modelyard.gateway.counters import Answered, GatewayCounters, sum_attempts
from modelyard.runtime.envoys import EnvoyReader
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.metrics import READINGS
from modelyard.runtime.queue import WorkQueue
from modelyard.runtime.settings import OperatorSettings
from modelyard.runtime.slices import Slices

READ_SHARE = 0.2
"""Largest share of the time that Envoys spend with being read: a page of 1,000 tenants and 10 models takes Envoy's main
thread about a second."""

RECONNECT_SECONDS = 10.0
"""Seconds after its start in which an operator without an Envoy does not know whether there is one: they come back
within a second of theirs (`retry_back_off` of the bootstrap), on a busy machine later."""


async def _leave_routes(_now: float) -> None:
    """Decide nothing about LLMRoutes."""


class Reader:
    """Reads counters, and asks for work on the deployments whose decision they change."""

    def __init__(
        self,
        fleet: Fleet,
        server: AdsServer,
        queue: WorkQueue,
        settings: OperatorSettings,
        decide_routes: Callable[[float], Awaitable[None]] = _leave_routes,
    ) -> None:
        """`decide_routes` decides about LLMRoutes at a Unix time: before deployments, which follow them."""
        self._fleet = fleet
        self._decide_routes = decide_routes
        self._server = server
        self._queue = queue
        self._settings = settings
        self.envoys = EnvoyReader(server, fleet.counts)
        self._cost_due = 0.0
        self._started = time.monotonic()

    async def run(self) -> None:
        """Read until cancelled."""
        async with aiohttp.ClientSession() as session:
            try:
                while True:
                    longest = await self._read(session)
                    await self.decide(time.time())
                    pause = max(self._settings.read_interval, longest / READ_SHARE - longest)
                    self._fleet.read_pace = longest + pause
                    await asyncio.sleep(pause)
            finally:
                await self.envoys.close()

    async def _read(self, session: aiohttp.ClientSession) -> float:
        """Take in one reading of every Envoy, and return how many seconds the longest took.

        One that has an ADS stream and cannot be read makes the demand unknown. One whose stream is away does not: what
        it serves is counted while it answers.
        """
        fleet = self._fleet
        found = await self.envoys.round(session)
        fleet.readings += found.news
        # Envoys of before a restart of the operator may be on their way back.
        waits = not found.envoys and time.monotonic() - self._started <= RECONNECT_SECONDS
        if found.until is not None and not waits:
            fleet.counted_until = max(fleet.counted_until, found.until)
        if found.envoys:
            READINGS.labels(outcome="complete" if found.complete else "incomplete").inc()
        if found.complete:
            totals, now = self.envoys.totals.totals, time.time()
            fleet.reading = await asyncio.to_thread(
                build_reading, totals, dict(found.present), fleet.table.routes, now
            )
        return found.longest

    async def decide(self, now: float) -> None:
        """Take the reading into the memory and ask for work where it changes something.

        `now`: Unix time. Not to be called before the last call is over.
        """
        await self._observe(now)
        await self._decide_routes(now)
        show_cost = now >= self._cost_due
        if show_cost:
            self._cost_due = now + self._settings.cost_interval
        slices = Slices()
        for key in self._fleet.deployment_keys():
            await slices.pause()
            self._look(key, now, show_cost=show_cost)

    async def _observe(self, now: float) -> None:
        """Take the reading into what is remembered of demand and of the mean request."""
        fleet = self._fleet
        deployments = {deployment.key: deployment for deployment in fleet.readable()}
        before = dict(fleet.memory)
        observed = await asyncio.to_thread(
            observe_demand,
            Snapshot(deployments=deployments, reading=fleet.reading),
            fleet.table.routes,
            Memory(before),
            now,
            self._settings.policy,
        )
        for key, found in observed.deployments.items():
            known, current = before.get(key), fleet.memory.get(key)
            if found is known or fleet.deployment(key) is None:
                continue
            # Whatever others have remembered meanwhile stays.
            fleet.memory[key] = (
                found
                if current is None or current is known
                else replace(current, demand=found.demand, shape=found.shape)
            )

    def _look(self, key: str, now: float, *, show_cost: bool) -> None:
        """Decide about a deployment as it stands, and ask for work if that changes something. Never waits."""
        fleet, seen, plan = self._fleet, self._fleet.deployment(key), self._fleet.plans.get(key)
        if seen is None or seen.object is None or plan is None:
            return
        deployment = seen.object
        if fleet.reading is not None:
            tokens = observe_tokens(fleet.tokens.get(key, TokenMemory()), fleet.reading, key)
            fleet.tokens[key] = tokens
            cost = cost_per_million(hourly_cost(plan, fleet.pods(key)), token_rate(tokens))
            if show_cost and cost is not None:
                self._queue.add(key)
        if deployment.spec.scaling is None or deployment.spec.suspend:
            return
        snapshot = fleet.snapshot_one(key, deployment)
        known = fleet.memory.get(key)
        new, remembered = decide_deployment(key, snapshot, known, now, self._settings.policy)
        if known is not None:
            # Every reading counts towards the forecast, the headroom and the proof of a scale-down. The rest of the
            # memory is of what has been done, and this decision only asks for it.
            fleet.memory[key] = replace(known, size=remembered.size)
        if new.size is None or plan.size is None:
            return
        changed = (new.size.replicas, new.size.reason.code) != (plan.size.replicas, plan.size.reason.code)
        if changed or _counts(new) != _counts(plan):
            self._queue.add(key)


def _counts(plan: DeploymentPlan) -> tuple[int | None, tuple[tuple[str, int | None], ...]]:
    """Return the replicas that a plan writes, in all and by variant."""
    variants = plan.placement.variants if plan.placement is not None else ()
    return plan.replicas, tuple((item.variant.name, item.replicas) for item in variants)


def build_reading(
    totals: GatewayCounters, present: dict[str, GatewayCounters], routes: tuple[Route, ...], now: float
) -> GatewayReading:
    """Return the counters in the form that the decision reads.

    Requests in progress are what arrived less what ended, counted per Envoy that is there: an Envoy that died took
    its requests with it. They are the work of the targets that they came to, be it by a rule.
    """
    waiting: dict[str, int] = {}
    for counters in present.values():
        for name, arrived in counters.arrivals.items():
            waiting[name] = waiting.get(name, 0) + arrived - counters.ended.get(name, 0)
    active: dict[str, int] = {}
    for entry in routes:
        rules = ((rule_name(entry.name, number), rule.targets) for number, rule in enumerate(entry.rules))
        for name, targets in ((entry.name, entry.targets), *rules):
            # One that only stands by has no share in what is under way.
            for key in {target.upstream.partition(":")[0] for target in targets if _has_share(target)}:
                active[key] = active.get(key, 0) + max(waiting.get(name, 0), 0)
    return GatewayReading(
        time=now,
        arrivals=totals.arrivals,
        active=active,
        answers=_answers(totals.requests, _deployment),
        input_tokens=_sum_by(totals.prompt_tokens.items(), _deployment),
        output_tokens=_sum_by(totals.completion_tokens.items(), _deployment),
        route_answers=_answers(totals.requests, _route),
        route_input_tokens=_sum_by(totals.prompt_tokens.items(), _route),
        route_cached_tokens=_sum_by(totals.cached_tokens.items(), _route),
        route_output_tokens=_sum_by(totals.completion_tokens.items(), _route),
        attempts=sum_attempts(totals),
        estimated_tokens=_sum_by(
            chain(totals.estimated_prompt_tokens.items(), totals.estimated_completion_tokens.items()),
            _deployment,
        ),
    )


def _has_share(target: WeightedTarget) -> bool:
    """Return whether a deployment is sent requests; providers never sleep."""
    return target.weight > 0 and not target.upstream.startswith(EXTERNAL_PREFIX)


def _answers(counts: Mapping[tuple[Answered, str], int], find: Callable[[Answered], str]) -> dict[str, float]:
    """Return the requests that were answered well, by what `find` gives."""
    return _sum_by(((answered, value) for (answered, code), value in counts.items() if code == "2xx"), find)


def _sum_by(counts: Iterable[tuple[Answered, int]], find: Callable[[Answered], str]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for answered, value in counts:
        sums[find(answered)] = sums.get(find(answered), 0.0) + value
    return sums


def _deployment(answered: Answered) -> str:
    return answered.deployment


def _route(answered: Answered) -> str:
    return answered.route
