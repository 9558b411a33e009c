"""A fleet whose routes are decided on at every reading, as the operator does it, with requests that come as told."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from modelyard.core.breakeven.inputs import BreakEvenPolicy
from modelyard.core.decide import decide_deployment, observe_demand
from modelyard.core.names import build_routing_table, resolve_names
from modelyard.core.plan import DeploymentPlan
from modelyard.core.routeplan.decide import decide_routes
from modelyard.core.routeplan.model import RoutePlan, RoutesMemory, RoutesPlan
from modelyard.core.routing import BudgetRule, Route, RoutingTable, route_name
from modelyard.core.snapshot import ChildDeployment, GatewayReading, Snapshot
from modelyard.core.state import Memory, Policy
from modelyard.core.variants import variant_name
from tests.unit.core.build import NOW, make_pod

L4 = variant_name("l4", 1, spot=False)
READ = 2.0
"""Seconds between two readings."""


class Stage:
    """Pods serve so many seconds after they are asked for, and go at once."""

    def __init__(self, snapshot: Snapshot, *, start: float = 30.0, policy: Policy | None = None) -> None:
        self.snapshot = snapshot
        self.now = NOW
        self.start = start
        self.policy = policy or Policy()
        self.memory = Memory()
        self.routes_memory = RoutesMemory()
        self.plan = RoutesPlan()
        self.plans: dict[str, DeploymentPlan] = {}
        self.table = RoutingTable()
        self.totals: dict[str, float] = {}
        self.tokens = (1155.0, 211.0)
        """Of each request: prompt and answer."""
        self.born: dict[str, list[float]] = {key: [] for key in snapshot.deployments}
        self.budgets: tuple[BudgetRule, ...] = ()
        """What budgets make of every LLMRoute."""
        self.changes: list[tuple[float, str]] = []
        """Targets of routes of lowest cost as they change, with the seconds since the beginning."""
        self.build()

    def build(self) -> None:
        """Make the routing table anew."""
        snapshot = replace(self.snapshot, pods=self.pods())
        owners = resolve_names(snapshot)
        table = build_routing_table(snapshot, owners, {}, self.table, self.plan.routes, anonymous=True)
        routes = (
            replace(route, budgets=self.budgets) if route.name.endswith("@route") else route
            for route in table.routes
        )
        self.table = replace(table, routes=tuple(routes))

    def pods(self) -> dict[str, tuple]:
        """Return the pods that there are."""
        return {
            key: tuple(
                make_pod(
                    f"{key}-{number}",
                    key,
                    address=f"10.0.0.{number + 1}",
                    variant=L4,
                    accelerator="l4",
                    created=born,
                    ready=self.now - born >= self.start,
                    ready_since=born + self.start if self.now - born >= self.start else None,
                )
                for number, born in enumerate(births)
            )
            for key, births in self.born.items()
        }

    def serve(self, key: str, count: int) -> None:
        """Have so many pods serve now."""
        self.born[key] = [self.now - self.start] * count

    def run(self, seconds: float, rates: Mapping[str, float]) -> None:
        """Let time pass, with so many requests per second for each `Route.name`."""
        for _ in range(round(seconds / READ)):
            self.now += READ
            for name, rate in rates.items():
                self.totals[name] = self.totals.get(name, 0.0) + rate * READ
            self.read()

    def run_until(
        self, happens: Callable[[], bool], rates: Mapping[str, float], seconds: float = 600.0
    ) -> None:
        """Let time pass until something is so. Fails if it has not come after so many seconds."""
        end = self.now + seconds
        while not happens():
            assert self.now < end, f"it did not happen within {seconds:.0f} s"
            self.run(READ, rates)

    def read(self) -> None:
        """Decide as the operator does at a reading."""
        reading = GatewayReading(
            self.now,
            arrivals=dict(self.totals),
            route_answers=dict(self.totals),
            route_input_tokens={name: total * self.tokens[0] for name, total in self.totals.items()},
            route_output_tokens={name: total * self.tokens[1] for name, total in self.totals.items()},
        )
        children = {
            key: {L4: ChildDeployment(replicas=len(births))}
            for key, births in self.born.items()
            if key in self.plans
        }
        snapshot = replace(self.snapshot, reading=reading, pods=self.pods(), children=children)
        self.memory = observe_demand(snapshot, self.table.routes, self.memory, self.now, self.policy)
        before = self.plan
        self.plan, self.routes_memory = decide_routes(
            snapshot, self.table.routes, self.routes_memory, self.memory.deployments, self.now, self.policy
        )
        self._note(before)
        self.build()
        snapshot = replace(snapshot, asked=self.plan.asked)
        remembered = dict(self.memory.deployments)
        for key in snapshot.deployments:
            self.plans[key], remembered[key] = decide_deployment(
                key, snapshot, remembered.get(key), self.now, self.policy
            )
            count = self.plans[key].replicas or 0
            self.born[key] = (self.born[key] + [self.now] * count)[:count]
        self.memory = Memory(remembered)
        self.build()

    def _note(self, before: RoutesPlan) -> None:
        for key, plan in self.plan.routes.items():
            old = before.routes.get(key)
            if plan.choice is None or plan.choice.target is None:
                continue
            if old is None or old.choice is None or old.choice.target != plan.choice.target:
                self.changes.append((self.now - NOW, plan.choice.target.name))

    def route(self, key: str) -> Route:
        """Return a route of the table."""
        return next(route for route in self.table.routes if route.name == route_name(key))

    def decided(self, key: str) -> RoutePlan:
        """Return what was decided about a route."""
        return self.plan.routes[key]

    def replicas(self, key: str) -> int:
        """Return the replicas of a deployment."""
        return len(self.born[key])


QUICK = Policy(breakeven=BreakEvenPolicy(horizon=60.0, calm=60.0))
"""Changes cost little, so that a test needs few readings."""
