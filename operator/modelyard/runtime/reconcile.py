"""One deployment: snapshot, decide, apply, status. Level-triggered: what happened before does not matter."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from modelyard.api.llmdeployment import LLMDeployment, LLMDeploymentStatus
from modelyard.api.llmroute import LLMRoute, LLMRouteStatus
from modelyard.api.meta import API_VERSION, split_key, wire
from modelyard.core.cost import TokenMemory, cost_per_million, token_rate
from modelyard.core.coststatus import hourly_cost
from modelyard.core.decide import decide_deployment
from modelyard.core.external import take_over
from modelyard.core.names import explain_deployment, explain_route
from modelyard.core.plan import DeploymentPlan, Placement
from modelyard.core.reasons import Code, Reason
from modelyard.core.replicas import SizeMemory
from modelyard.core.routestatus import tell_plan
from modelyard.core.routing import route_name
from modelyard.core.snapshot import Snapshot
from modelyard.core.state import DeploymentMemory
from modelyard.core.status import build_invalid_status, build_route_status, build_status
from modelyard.kube.client import ApiError, KubeClient
from modelyard.kube.projections import (
    Seen,
    project_child,
    project_groups,
    project_object,
    project_route,
)
from modelyard.kube.resources import LEADER_WORKER_SETS, LLM_DEPLOYMENTS, LLM_ROUTES, WORKLOADS
from modelyard.render.children import build_children, build_policy, check_workload
from modelyard.render.workload import Parent, Workload
from modelyard.runtime.children import ChildApplier, Stranger
from modelyard.runtime.events import EventRecorder
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.groups import GroupKeeper
from modelyard.runtime.logs import about
from modelyard.runtime.metrics import WRITES
from modelyard.runtime.pickers import PickerKeeper
from modelyard.runtime.publisher import Publisher
from modelyard.runtime.scalers import ScalerKeeper
from modelyard.runtime.settings import OperatorSettings
from modelyard.runtime.sizes import SizeBoard

logger = logging.getLogger(__name__)

CONFLICT_RETRY = 10.0
"""Seconds until a name taken by a stranger is looked at again: nothing tells us when it is free."""

SCALER_SETTLE = 1.0
"""Seconds between the end of an outside autoscaler and the next decision, in which its last write becomes visible."""


_DEPLOYMENT = "LLMDeployment "
"""Begins the keys of LLMDeployments among what cannot be read."""


class Reconciler:
    """Brings one LLMDeployment or LLMRoute in line with its spec."""

    def __init__(
        self,
        client: KubeClient,
        children: ChildApplier,
        fleet: Fleet,
        publisher: Publisher,
        known_generation: Callable[[str], int | None],
        scalers: ScalerKeeper,
        pickers: PickerKeeper,
        groups: GroupKeeper,
        sizes: SizeBoard,
        settings: OperatorSettings,
    ) -> None:
        self.children = children
        self._client = client
        self._fleet = fleet
        self._publisher = publisher
        self._known_generation = known_generation
        self._scalers = scalers
        self._pickers = pickers
        self._groups = groups
        self._sizes = sizes
        self._settings = settings
        self._events = EventRecorder(client)
        self._cost_written: dict[str, float] = {}
        self._unreadable: dict[str, str] = {}
        """What was told of LLMRoutes and LLMDeployments that cannot be read."""

    async def reconcile(self, key: str) -> float | None:
        """Bring a deployment in line. Returns the seconds after which it must be looked at again, if any.

        Raises ApiError where the API server refuses or cannot be reached; a later try starts from the new state.
        """
        seen = self._fleet.deployment(key)
        if seen is None or seen.object is not None:
            self._unreadable.pop(_DEPLOYMENT + key, None)
        if seen is None:
            self._fleet.forget(key)
            self.children.forget(key)
            self._scalers.forget(key)
            self._sizes.forget(key)
            self._publisher.request()
            return None
        deployment = seen.object
        if deployment is None:
            await self._report_unreadable(key, seen)
            return None
        if deployment.metadata.deletion_timestamp is not None:
            return None
        return await self._reconcile(key, deployment)

    async def _reconcile(self, key: str, deployment: LLMDeployment) -> float | None:
        now = time.time()
        if await self._scalers.remove_unwanted(deployment):
            return SCALER_SETTLE
        await self._groups.ask_first(deployment)
        snapshot = self._fleet.snapshot_one(key, deployment)
        memory = take_over(deployment, self._fleet.plans.get(key), self._fleet.memory.get(key), now)
        if deployment.status.observed_generation == 0:
            memory = self._begin(deployment, memory, now)
        plan, self._fleet.memory[key] = decide_deployment(key, snapshot, memory, now, self._settings.policy)
        plan = self._check(deployment, plan)
        self._sizes.publish(deployment, plan)
        stored = deployment.status.gateway.generation if deployment.status.gateway else 0
        if deployment.status.observed_generation == 0:
            # Ready must not be said of a model that the gateway does not know yet.
            self._fleet.plans[key] = plan
            await self._publisher.published()
        if plan.generation != stored or plan.replicas == 0:
            # The gateway must hold new requests before the pods go, and only under a name that is written down.
            # The plan comes first: no table may show the new name with the pods that are being put to sleep.
            self._fleet.plans[key] = plan
            await self._write_status(deployment, plan, snapshot, now)
            self._publisher.request()
            await self._publisher.published()
        again = await self._apply(key, deployment, plan)
        seen = self._fleet.deployment(key)
        if seen is None or seen.object is None:
            return again
        current = seen.object
        snapshot = self._fleet.snapshot_one(key, current)
        if again is not None:
            plan, self._fleet.memory[key] = decide_deployment(
                key, snapshot, self._fleet.memory.get(key), now, self._settings.policy
            )
        await self._write_status(current, plan, snapshot, now)
        self._fleet.plans[key] = plan
        self._publisher.request()
        return again

    def _begin(
        self, deployment: LLMDeployment, memory: DeploymentMemory | None, now: float
    ) -> DeploymentMemory | None:
        """Return the memory of a deployment that was never reconciled.

        Envoy may know its name from a deployment that was deleted, and never asks twice for one cluster name.
        """
        known = self._known_generation(deployment.key)
        if known is None:
            return memory
        memory = memory or DeploymentMemory(size=SizeMemory(since=now))
        return replace(memory, generation=max(memory.generation, known + 1))

    def _check(self, deployment: LLMDeployment, plan: DeploymentPlan) -> DeploymentPlan:
        """Return the plan, refused if one of its workloads cannot be built."""
        if plan.refusal is not None or plan.placement is None:
            return plan
        for workload in self._workloads(deployment, plan.placement):
            refusal = check_workload(workload, self._settings.render)
            if refusal is not None:
                return replace(plan, refusal=refusal)
        return plan

    def _workloads(self, deployment: LLMDeployment, placement: Placement) -> list[Workload]:
        sovereign = self._fleet.is_sovereign(deployment.key)
        leaves_groups = self._leaves_groups(deployment)
        return [
            Workload(
                deployment=deployment,
                accelerator=item.variant.accelerator,
                count=item.variant.count,
                replicas=item.replicas,
                pipeline=item.variant.parallelism.pipeline,
                nodes=item.variant.nodes,
                spot=item.variant.spot,
                fitting_context=item.variant.fitting_context,
                sovereign=sovereign,
                leaves_groups=leaves_groups,
            )
            for item in placement.variants
        ]

    def _leaves_groups(self, deployment: LLMDeployment) -> bool:
        children = self._fleet.children(deployment.key, deployment.metadata.uid).values()
        return any(child.kind == LEADER_WORKER_SETS.kind for child in children)

    async def _apply(self, key: str, deployment: LLMDeployment, plan: DeploymentPlan) -> float | None:
        """Apply the children. Returns a delay if a stranger has the name."""
        if plan.refusal is not None or plan.placement is None:
            await self._close(key, deployment)
            return CONFLICT_RETRY if self._fleet.strangers.pop(key, None) else None
        if unseen := self._fleet.take_unseen(key):
            logger.warning(
                "The watch has not shown %s of %s: compared with the API server, and written again if missing",
                ", ".join(unseen),
                key,
                extra=about(key),
            )
            self.children.forget(key)
        workloads = self._workloads(deployment, plan.placement)
        least = deployment.spec.scaling.min if deployment.spec.scaling is not None else 1
        for manifest in build_children(workloads, self._settings.render):
            written = await self.children.apply(key, manifest, least)
            if isinstance(written, Stranger):
                self._fleet.strangers[key] = str(written)
                return CONFLICT_RETRY
            if written is None:
                continue
            WRITES.labels(kind=manifest["kind"]).inc()
            if manifest["kind"] in WORKLOADS:
                project = project_groups if manifest["kind"] == LEADER_WORKER_SETS.kind else project_child
                self._fleet.note_child(key, project(written))
        self._fleet.strangers.pop(key, None)
        await self._remove(key, deployment, plan.placement)
        await self._scalers.apply(deployment, workloads[0])
        return None

    async def _close(self, key: str, deployment: LLMDeployment) -> None:
        """Take the way out from pods that a refused spec leaves running, if a sovereign route sends to them."""
        parent = Parent(
            deployment,
            sovereign=self._fleet.is_sovereign(key),
            leaves_groups=self._leaves_groups(deployment),
        )
        if parent.sovereign and parent.is_remote:
            written = await self.children.apply(key, build_policy(parent, self._settings.render))
            if isinstance(written, dict):
                WRITES.labels(kind=written["kind"]).inc()

    async def _remove(self, key: str, deployment: LLMDeployment, placement: Placement) -> None:
        """Delete the Deployments and LeaderWorkerSets of variants that are not used any more.

        Their pods finish their requests.
        """
        children = self._fleet.children(key, deployment.metadata.uid)
        for variant in placement.remove:
            child = children.get(variant)
            if child is None:
                continue
            if await self.children.remove(key, WORKLOADS[child.kind], child.name, child.uid):
                WRITES.labels(kind=child.kind).inc()
            self._fleet.forget_child(key, child.name)
            if child.kind == LEADER_WORKER_SETS.kind:
                # Nothing tells of its end, after which the pods that stay need less of the network.
                self._groups.look_again(key)

    async def _write_status(
        self, deployment: LLMDeployment, plan: DeploymentPlan, snapshot: Snapshot, now: float
    ) -> None:
        """Write the status if it differs from what stands."""
        key = deployment.key
        name = explain_deployment(deployment, self._fleet.owners) or (
            True,
            Reason(Code.ROUTED, f"requests for {deployment.served_name} come here"),
        )
        cost = None
        if now - self._cost_written.get(key, 0.0) >= self._settings.cost_interval:
            hourly = hourly_cost(plan, self._fleet.pods(key))
            cost = cost_per_million(hourly, token_rate(self._fleet.tokens.get(key, TokenMemory())))
        scaler = self._scalers.explain(deployment)
        more = (*self._pickers.explain(deployment), *self._groups.explain(deployment))
        status = build_status(deployment, plan, snapshot, name, cost, now, scaler, more)
        if status == deployment.status:
            return
        if cost is not None:
            self._cost_written[key] = now
        written = await self._apply_status(deployment, status)
        if written is not None:
            self._note_decision(deployment, status)
            await self._events.emit_changes(deployment, status)

    async def _apply_status(
        self, deployment: LLMDeployment, status: LLMDeploymentStatus
    ) -> Seen[LLMDeployment] | None:
        """Write a status. Returns None if the object is gone."""
        namespace, name = split_key(deployment.key)
        manifest = {
            "apiVersion": API_VERSION,
            "kind": LLM_DEPLOYMENTS.kind,
            "metadata": {"name": name, "namespace": namespace},
            "status": wire(status),
        }
        try:
            answer = await self._client.apply(LLM_DEPLOYMENTS, manifest, "status")
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        WRITES.labels(kind="LLMDeployment/status").inc()
        view = project_object(LLMDeployment, answer)
        self._fleet.written.note(deployment.key, view.uid, view.version, view)
        return view

    def _note_decision(self, deployment: LLMDeployment, status: LLMDeploymentStatus) -> None:
        before, after = deployment.status.scaling, status.scaling
        if after is not None and (before is None or before.desired_replicas != after.desired_replicas):
            self._sizes.count(deployment.key, after.reason)
            logger.info(
                "Size of %s: %s to %d, %s: %s",
                deployment.key,
                "none" if before is None else before.desired_replicas,
                after.desired_replicas,
                after.reason,
                after.message,
                extra=about(deployment.key, reason=after.reason),
            )

    async def _report_unreadable(self, key: str, seen: Seen[LLMDeployment]) -> None:
        """Say that an object cannot be read, and leave everything that runs as it is."""
        if self._unreadable.get(_DEPLOYMENT + key) == seen.error:
            return
        self._unreadable[_DEPLOYMENT + key] = seen.error
        fields = about(key, reason=Code.INVALID)
        logger.error("LLMDeployment %s cannot be read: %s", key, seen.error, extra=fields)
        # An Event and no condition: a status that is written would have to keep what it could not read.
        await self._events.emit_unreadable(LLM_DEPLOYMENTS.kind, key, seen.uid, seen.error)

    async def reconcile_route(self, key: str) -> None:
        """Write the status of an LLMRoute if it differs from what stands."""
        self._publisher.request()
        await self._publisher.published()
        seen = self._fleet.route(key)
        if seen is None:
            self._fleet.routes_written.pop(key, None)
            self._fleet.read_routes.pop(key, None)
            self._unreadable.pop(key, None)
            return
        if seen.object is None:
            await self._report_route(key, seen)
            return
        self._unreadable.pop(key, None)
        route = seen.object
        now = time.time()
        status = self._build_route_status(key, route, now)
        if status is not None and status != route.status:
            await self._apply_route_status(key, status)
            self._fleet.routes_written[key] = now
            await self._events.emit_route_change(route, status)

    def _build_route_status(self, key: str, route: LLMRoute, now: float) -> LLMRouteStatus | None:
        """Return the status that follows from what is known of a route; None before its name was resolved."""
        name = explain_route(route, self._fleet.owners)
        if name is None:
            return None
        late = self._fleet.rollout.late.get(route_name(key))
        # What the newest table was built from: a look at the whole fleet for each route takes longer than all else.
        fleet = self._fleet
        status = build_route_status(route, fleet.names, name, now, late, fleet.closed_names)
        settled = self._fleet.is_settled(key, now, self._settings.route_interval)
        return tell_plan(status, route, self._fleet.routes_plan.routes.get(key), now, settled=settled)

    async def _report_route(self, key: str, seen: Seen[LLMRoute]) -> None:
        """Say that an LLMRoute cannot be read. What held of it before holds on."""
        if self._unreadable.get(key) != seen.error:
            self._unreadable[key] = seen.error
            fields = about(key, LLM_ROUTES.kind, Code.INVALID)
            logger.error("LLMRoute %s cannot be read: %s", key, seen.error, extra=fields)
        now = time.time()
        served = None
        if (known := self._fleet.known_route(key)) is not None:
            stood = known.status.model_copy(update={"conditions": seen.conditions})
            served = self._build_route_status(key, known.model_copy(update={"status": stood}), now)
        status = build_invalid_status(key, seen.error, served, seen.conditions, seen.generation, now)
        if status.conditions == seen.conditions:
            return
        try:
            await self._apply_route_status(key, status)
        except ApiError as error:
            # The API server may find the object as unreadable as we do, and a later try would be refused alike.
            if error.status not in {400, 422}:
                raise

    async def _apply_route_status(self, key: str, status: LLMRouteStatus) -> None:
        namespace, name = split_key(key)
        manifest = {
            "apiVersion": API_VERSION,
            "kind": LLM_ROUTES.kind,
            "metadata": {"name": name, "namespace": namespace},
            "status": wire(status),
        }
        answer = await self._client.apply(LLM_ROUTES, manifest, "status")
        WRITES.labels(kind="LLMRoute/status").inc()
        view = project_route(answer)
        self._fleet.written_routes.note(key, view.uid, view.version, view)
