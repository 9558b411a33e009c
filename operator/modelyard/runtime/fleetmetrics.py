"""Metrics that a scrape works out from the state of the process.

Nothing is kept between two scrapes, so series of objects that are gone go with them. docs/observability.md lists all.
Thousands of objects have tens of thousands of values: they are worked out on the event loop in slices, and written as
text elsewhere.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.meta import ObjectMeta, Status, split_key
from modelyard.core.cost import TokenMemory, cost_per_million, token_rate
from modelyard.core.coststatus import hourly_cost
from modelyard.core.inventory import count_accelerators
from modelyard.core.snapshot import Pod
from modelyard.core.state import Policy
from modelyard.core.status import METRICS_AVAILABLE, PLACEMENT_PREFERRED, READY, STALLED
from modelyard.gateway.ads import Node
from modelyard.kube.projections import Seen
from modelyard.kube.resources import Resource
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.holds import HoldBoard
from modelyard.runtime.metrics import DEPLOYMENT
from modelyard.runtime.queue import WorkQueue
from modelyard.runtime.slices import Slices

SHOWN_CONDITIONS = frozenset({READY, STALLED, METRICS_AVAILABLE, PLACEMENT_PREFERRED})
"""Types of conditions that have a series for each object: those that somebody is woken up for."""

GAUGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "modelyard_queue_length": ("Keys that wait for a worker.", ()),
    "modelyard_queue_oldest_seconds": ("How long the oldest of them has waited.", ()),
    "modelyard_queue_failing": ("Keys whose last try failed, and that are tried again later.", ()),
    "modelyard_watch_age_seconds": (
        "Time since a watch was known to show all that the API server has.",
        ("resource",),
    ),
    "modelyard_watch_last_event_timestamp_seconds": (
        "When a watch last showed anything, as Unix time.",
        ("resource",),
    ),
    "modelyard_objects": ("Objects that are read, by kind.", ("kind",)),
    "modelyard_unreadable_objects": (
        "Objects among them that cannot be read: what ran before goes on.",
        ("kind",),
    ),
    "modelyard_condition": (
        "1 where a condition is True, else 0. Types: Ready, Stalled, MetricsAvailable, PlacementPreferred.",
        ("kind", "namespace", "name", "type", "reason"),
    ),
    "modelyard_wanted_replicas": ("Replicas that the plan has, over all variants.", DEPLOYMENT),
    "modelyard_replicas": (
        "Pods by state: serving; starting (on a node); pending (without one); leaving.",
        (*DEPLOYMENT, "state"),
    ),
    "modelyard_requests_in_progress": ("Requests that are held or being answered.", DEPLOYMENT),
    "modelyard_held_seconds": (
        "How long requests have waited for a model that has no serving replica.",
        DEPLOYMENT,
    ),
    "modelyard_offered_requests_per_second": ("Level of the offered load, smoothed.", DEPLOYMENT),
    "modelyard_forecast_requests_per_second": ("Load that is expected one start time from now.", DEPLOYMENT),
    "modelyard_forecast_error_ratio": (
        "Relative standard deviation of the forecast's error, bursts left out.",
        DEPLOYMENT,
    ),
    "modelyard_planned_requests_per_second": ("Capacity that the decided size stands for.", DEPLOYMENT),
    "modelyard_cost_dollars_per_million_tokens": (
        "US dollars per million tokens, input and output alike, of the last five minutes; idle accelerators included.",
        DEPLOYMENT,
    ),
    "modelyard_accelerators": ("Accelerators of the nodes of a class; nodes may be in several.", ("class",)),
    "modelyard_accelerators_free": ("Those of them that a new pod could get.", ("class",)),
    "modelyard_budget_amount_dollars": ("Amount of a budget for its period.", ("budget",)),
    "modelyard_budget_spent_dollars": (
        "US dollars spent since the period began; absent while that is not known.",
        ("budget",),
    ),
    "modelyard_budget_state": (
        "1 where a budget's limit is reached (soft, hard) or what was spent is not known (unknown), else 0.",
        ("budget", "state"),
    ),
    "modelyard_budget_resets_timestamp_seconds": ("When a budget's period ends, as Unix time.", ("budget",)),
    "modelyard_budget_runs_out_timestamp_seconds": (
        "When its amount will be spent if spending goes on like this; absent where not within the period.",
        ("budget",),
    ),
    "modelyard_gateway_nodes": ("Envoys that are connected.", ()),
    "modelyard_gateway_rejections": ("Configurations that connected Envoys rejected.", ()),
    "modelyard_gateway_reading_timestamp_seconds": (
        "When the counters of all Envoys were last read, as Unix time; absent before the first reading.",
        (),
    ),
    "modelyard_spend_timestamp_seconds": (
        "Until when what was spent is known, as Unix time; absent while nothing is.",
        (),
    ),
}
"""Help text and labels, by name."""


class Watches(Protocol):
    """What is known of the watches."""

    events: dict[Resource, float]

    def ages(self) -> Mapping[Resource, float]:
        """Return seconds by kind."""
        ...


@dataclass(frozen=True, slots=True)
class Sample:
    """One value."""

    name: str
    labels: tuple[str, ...]
    value: float


class FleetCollector(Collector):
    """Works out the gauges above."""

    def __init__(
        self,
        fleet: Fleet,
        queue: WorkQueue,
        holds: HoldBoard,
        watches: Watches,
        envoys: Callable[[], Iterable[Node]],
        policy: Policy,
        acts: Callable[[], bool],
    ) -> None:
        """Begin. `envoys` are those that the ADS server knows.

        `acts` says whether this process decides: the figures of one that stands by would count twice.
        """
        self._fleet = fleet
        self._queue = queue
        self._holds = holds
        self._watches = watches
        self._envoys = envoys
        self._policy = policy
        self._acts = acts
        self._made: tuple[GaugeMetricFamily, ...] | None = None

        self._scraping = asyncio.Lock()

    async def write(self, registry: CollectorRegistry) -> bytes:
        """Return the page of a registry that this belongs to, to one scrape after the other."""
        async with self._scraping:
            families, slices = _families(), Slices()
            for sample in self._samples():
                families[sample.name].add_metric(sample.labels, sample.value)
                await slices.pause()
            self._made = tuple(families.values())
            try:
                return await asyncio.to_thread(generate_latest, registry)
            finally:
                self._made = None

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Return the families without values."""
        return _families().values()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return all values as they are now, or as `write` found them."""
        if self._made is not None:
            return self._made
        families = _families()
        for sample in self._samples():
            families[sample.name].add_metric(sample.labels, sample.value)
        return families.values()

    def _samples(self) -> Iterator[Sample]:
        """Yield all values. The fleet may change between two of them."""
        if self._acts():
            for source in (self._process, self._objects, self._deployments, self._classes, self._budgets):
                yield from source()

    def _process(self) -> Iterator[Sample]:
        yield Sample("modelyard_queue_length", (), len(self._queue))
        yield Sample("modelyard_queue_oldest_seconds", (), self._queue.oldest())
        yield Sample("modelyard_queue_failing", (), self._queue.failing)
        for resource, age in self._watches.ages().items():
            yield Sample("modelyard_watch_age_seconds", (resource.plural,), age)
        for resource, moment in list(self._watches.events.items()):
            yield Sample("modelyard_watch_last_event_timestamp_seconds", (resource.plural,), moment)
        envoys = [node for node in self._envoys() if node.connected]
        yield Sample("modelyard_gateway_nodes", (), len(envoys))
        yield Sample("modelyard_gateway_rejections", (), sum(node.rejections for node in envoys))
        fleet = self._fleet
        if fleet.reading is not None:
            yield Sample("modelyard_gateway_reading_timestamp_seconds", (), fleet.reading.time)
        if fleet.spend is not None:
            yield Sample("modelyard_spend_timestamp_seconds", (), fleet.spend.time)

    def _objects(self) -> Iterator[Sample]:
        fleet = self._fleet
        yield from _watched("LLMDeployment", {key: fleet.deployment(key) for key in fleet.deployment_keys()})
        yield from _watched("LLMRoute", {key: fleet.route(key) for key in fleet.route_keys()})
        providers = [item.object for item in fleet.providers.values()]
        yield from _read("LLMProvider", [(item.metadata, item.status) for item in providers])
        yield from _read("LLMTenant", [(item.metadata, item.status) for item in fleet.tenants.values()])
        budgets = [item.budget for item in fleet.budgets]
        yield from _read("LLMBudget", [(item.metadata, item.status) for item in budgets])

    def _deployments(self) -> Iterator[Sample]:
        fleet, held = self._fleet, self._holds.seconds()
        for deployment in fleet.readable():
            key = deployment.key
            labels = split_key(key)
            pods = fleet.pods(key)
            for state, count in _count_states(pods).items():
                yield Sample("modelyard_replicas", (*labels, state), count)
            if key in held:
                yield Sample("modelyard_held_seconds", labels, held[key])
            if fleet.reading is not None:
                active = fleet.reading.active.get(key, 0)
                yield Sample("modelyard_requests_in_progress", labels, active)
            yield from self._plan(deployment, labels, pods)
            yield from self._load(key, labels)

    def _plan(
        self, deployment: LLMDeployment, labels: tuple[str, str], pods: tuple[Pod, ...]
    ) -> Iterator[Sample]:
        plan = self._fleet.plans.get(deployment.key)
        if plan is None:
            return
        if plan.replicas is not None:
            yield Sample("modelyard_wanted_replicas", labels, plan.replicas)
        if plan.size is not None and plan.size.capacity:
            yield Sample("modelyard_planned_requests_per_second", labels, plan.size.capacity)
        rate = token_rate(self._fleet.tokens.get(deployment.key, TokenMemory()))
        cost = cost_per_million(hourly_cost(plan, pods), rate)
        if cost is not None:
            yield Sample("modelyard_cost_dollars_per_million_tokens", labels, float(cost))

    def _load(self, key: str, labels: tuple[str, str]) -> Iterator[Sample]:
        memory, policy = self._fleet.memory.get(key), self._policy.size.load
        load = memory.size.load if memory is not None else None
        if load is None or load.forecast is None:
            return
        yield Sample("modelyard_offered_requests_per_second", labels, load.forecast.level(policy.forecast))
        if load.headroom.pending:
            yield Sample("modelyard_forecast_requests_per_second", labels, load.headroom.pending[-1].trend)
        yield Sample("modelyard_forecast_error_ratio", labels, load.headroom.relative(policy.headroom))

    def _classes(self) -> Iterator[Sample]:
        fleet = self._fleet
        classes = fleet.accelerators()
        yield Sample("modelyard_objects", ("AcceleratorClass",), len(fleet.indices.accelerators))
        inventory, _ = fleet.capacity.measure(fleet.indices, classes)
        if inventory is None:
            return
        for name, item in classes.items():
            if item.spec.resource_name is not None:
                total, free = count_accelerators(item, inventory)
                yield Sample("modelyard_accelerators", (name,), total)
                yield Sample("modelyard_accelerators_free", (name,), free)

    def _budgets(self) -> Iterator[Sample]:
        for standing in self._fleet.budgets:
            labels = (standing.budget.name,)
            if standing.period is not None:
                # Of one that cannot be read the amount is not known.
                amount = float(standing.budget.spec.amount)
                yield Sample("modelyard_budget_amount_dollars", labels, amount)
                yield Sample("modelyard_budget_resets_timestamp_seconds", labels, standing.period.end)
            if standing.spent is not None:
                yield Sample("modelyard_budget_spent_dollars", labels, standing.spent)
            states = {
                "soft": standing.soft_reached,
                "hard": standing.exhausted,
                "unknown": standing.unknown is not None,
            }
            for state, reached in states.items():
                yield Sample("modelyard_budget_state", (*labels, state), float(reached))
            if standing.runs_out is not None:
                yield Sample("modelyard_budget_runs_out_timestamp_seconds", labels, standing.runs_out)


def _families() -> dict[str, GaugeMetricFamily]:
    return {name: GaugeMetricFamily(name, text, labels=labels) for name, (text, labels) in GAUGES.items()}


def _watched(kind: str, objects: Mapping[str, Seen[Any] | None]) -> Iterator[Sample]:
    """Yield what there is of a kind that is watched."""
    found = {key: view.object for key, view in objects.items() if view is not None}
    yield Sample("modelyard_objects", (kind,), len(found))
    yield Sample("modelyard_unreadable_objects", (kind,), sum(item is None for item in found.values()))
    for key, item in found.items():
        if item is not None:
            yield from _conditions(kind, key, item.status)


def _read(kind: str, objects: Collection[tuple[ObjectMeta, Status]]) -> Iterator[Sample]:
    """Yield what there is of a kind of the gateway's namespace."""
    yield Sample("modelyard_objects", (kind,), len(objects))
    for metadata, status in objects:
        yield from _conditions(kind, f"{metadata.namespace}/{metadata.name}", status)


def _conditions(kind: str, key: str, status: Status) -> Iterator[Sample]:
    for condition in status.conditions:
        if condition.type in SHOWN_CONDITIONS:
            labels = (kind, *split_key(key), condition.type, condition.reason)
            yield Sample("modelyard_condition", labels, float(condition.status == "True"))


def _count_states(pods: Iterable[Pod]) -> dict[str, int]:
    counts = dict.fromkeys(("serving", "starting", "pending", "leaving"), 0)
    for pod in pods:
        if pod.terminating:
            counts["leaving"] += 1
        elif pod.serving:
            counts["serving"] += 1
        elif pod.live:
            counts["starting" if pod.scheduled else "pending"] += 1
    return counts
