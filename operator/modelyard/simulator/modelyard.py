"""The cluster's own decision as a policy of the simulator."""

from dataclasses import replace

from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.meta import wire
from modelyard.api.scaling import Scaling
from modelyard.core.decide import decide_deployment, observe_demand
from modelyard.core.load import LoadShape
from modelyard.core.plan import Size
from modelyard.core.replicas import SizeMemory
from modelyard.core.routing import Route, WeightedTarget
from modelyard.core.snapshot import ChildDeployment, GatewayReading, Pod, ServiceReading, Snapshot
from modelyard.core.state import DeploymentMemory, Memory, Policy
from modelyard.core.variants import Variant, variant_name
from modelyard.simulator.rivals.common import mean_shape
from modelyard.simulator.scenario import Scenario, Signals

READ_INTERVAL = 2.0
"""Seconds between two readings of the gateway's counters: the operator's default."""
ENGINE_INTERVAL = 15.0
"""Seconds between two readings of the engines' pages: the operator's default."""

KEY = "simulated/model"
CLASS = "simulated"
VARIANT = variant_name(CLASS, 1, spot=False)
ROUTES = (Route(KEY, ("model",), (WeightedTarget(KEY),)),)
EPOCH = 1_800_230_400.0
"""Unix time at which a run begins whose traffic has no date: Monday, 18 January 2027, 00:00 UTC. A Monday, so that the
days of the week in schedules are the days of the run; nothing but schedules asks for the date."""
ACTED_ON = {"mode": "Active", "actuator": "Modelyard", "external": None}
"""Of a `spec.scaling`, so that the decision counts."""


class ModelyardPolicy:
    """`decide_deployment` on a snapshot of one deployment that runs on one class, fed with what a run shows.

    A replica's capacity is the scenario's, declared as a user does (`requestsPerMinute`). How long a start takes is not
    told: the decision measures it on the pods.

    `scaling`: the `spec.scaling` of the deployment (objective, idleAfter, schedules, min and max); without it there are
    only the scenario's bounds. The run keeps to those in any case: for schedules they must be the widest
    (`Scaling.lowest_min`, `highest_max`). `begins`: Unix time of the run's second 0, which schedules follow.

    `subject`: the deployment and the variant that the scenario stands for, as the operator knows them: from the model's
    step times on that accelerator follows how much work a request is. Without it, tokens are weighed.
    """

    def __init__(
        self,
        scenario: Scenario,
        policy: Policy | None = None,
        *,
        interval: float = READ_INTERVAL,
        scaling: Scaling | None = None,
        begins: float = EPOCH,
        subject: tuple[LLMDeployment, Variant] | None = None,
    ) -> None:
        self._interval = interval
        self._policy = policy or Policy()
        self._begins = begins
        accelerator = _make_class(scenario) if subject is None else subject[1].accelerator
        self._class = accelerator.metadata.name
        self._variant = VARIANT if subject is None else subject[1].name
        self._deployment = _declare(scenario, scaling, subject)
        self._accelerators = {self._class: accelerator}
        fit = subject[1].fit if subject is not None else None
        self._profiles = {self._deployment.spec.model.source: fit.profile} if fit is not None else {}
        self._memory = DeploymentMemory(size=SizeMemory(since=begins))
        self._replicas: int | None = None
        self._pods: list[Pod] = []
        self._made = 0
        self._arrivals = 0.0
        self._answers = 0.0
        self._served = 0.0
        self._missed = 0.0
        self._service: ServiceReading | None = None
        self._input_tokens = 0.0
        self._output_tokens = 0.0
        self.size: Size | None = None
        """The last decision."""

    @property
    def name(self) -> str:
        """Name in reports."""
        return "modelyard"

    @property
    def interval(self) -> float:
        """Seconds between two decisions."""
        return self._interval

    @property
    def scaling(self) -> Scaling | None:
        """The `spec.scaling` that the decision follows."""
        return self._deployment.spec.scaling

    @property
    def reason(self) -> str:
        """Reason code of the last decision; empty before the first."""
        return self.size.reason.code if self.size is not None else ""

    @property
    def message(self) -> str:
        """The sentence to it."""
        return self.size.reason.message if self.size is not None else ""

    @property
    def memory(self) -> DeploymentMemory:
        """What the decision remembers."""
        return self._memory

    def decide(self, signals: Signals) -> int:
        """Return the replicas wanted, starting ones included."""
        now = self._begins + signals.time
        if self._replicas is None:
            self._replicas = signals.ready + signals.pending
        self._watch(signals, now)
        reading = None
        if signals.known:
            self._arrivals += signals.arrivals
            active = round(signals.running + signals.waiting - signals.gateway_waiting)
            self._answers += signals.completions
            self._input_tokens += signals.completed_input_tokens
            self._output_tokens += signals.completed_output_tokens
            reading = GatewayReading(
                now,
                {KEY: self._arrivals},
                {KEY: active},
                {KEY: self._answers},
                {KEY: self._output_tokens},
                {KEY: self._input_tokens},
            )
            self._count_service(signals, now)
        snapshot = Snapshot(
            services={KEY: self._service} if self._service is not None else {},
            deployments={KEY: self._deployment},
            accelerators=self._accelerators,
            profiles=self._profiles,
            pods={KEY: tuple(self._pods)},
            children={KEY: {self._variant: ChildDeployment(self._replicas)}},
            reading=reading,
            wakes={KEY: now} if signals.gateway_waiting else {},
        )
        memory = Memory({KEY: self._memory})
        observed = observe_demand(snapshot, ROUTES, memory, now, self._policy)
        plan, self._memory = decide_deployment(KEY, snapshot, observed.deployments[KEY], now, self._policy)
        if plan.replicas is None or plan.size is None:
            raise RuntimeError(f"the decision refused: {plan.refusal}")
        self.size, self._replicas = plan.size, plan.replicas
        return plan.replicas

    def _count_service(self, signals: Signals, now: float) -> None:
        """Read the engines' pages, which the operator does less often than the gateway's."""
        if signals.missed is None:
            return
        self._served += signals.completions
        self._missed += signals.missed
        if self._service is None or now - self._service.time >= ENGINE_INTERVAL:
            self._service = ServiceReading(
                now, self._served, self._missed, signals.waiting - signals.gateway_waiting
            )

    def _watch(self, signals: Signals, now: float) -> None:
        """Follow the pods: the oldest that start become ready; the newest leave, those that start first."""
        ready = [pod for pod in self._pods if pod.ready]
        starting = [pod for pod in self._pods if not pod.ready]
        while len(ready) < signals.ready:
            # One that was there before the run began has no start to measure.
            pod = starting.pop(0) if starting else self._make(0.0)
            ready.append(replace(pod, ready=True, ready_since=now, phase="Running", address="10.0.0.1"))
        del ready[signals.ready :]
        del starting[signals.pending :]
        while len(starting) < signals.pending:
            starting.append(self._make(now - signals.elapsed))
        self._pods = [*ready, *starting]

    def _make(self, created: float) -> Pod:
        self._made += 1
        name = f"pod-{self._made}"
        return Pod(
            name=name,
            uid=name,
            deployment=KEY,
            port=8000,
            variant=self._variant,
            scheduled=True,
            created=created,
        )


def _make_class(scenario: Scenario) -> AcceleratorClass:
    """Return a class of which nothing is known but its price."""
    price = {"onDemand": f"{scenario.price:.6f}"}
    spec = {"resourceName": "nvidia.com/gpu", "price": price}
    return AcceleratorClass.model_validate({"metadata": {"name": CLASS}, "spec": spec})


def _declare(
    scenario: Scenario, scaling: Scaling | None, subject: tuple[LLMDeployment, Variant] | None
) -> LLMDeployment:
    """Return the deployment as a user would write it who measured what a replica answers."""
    namespace, name = KEY.split("/")
    shape = mean_shape(scenario.arrivals)
    load = {
        "inputTokens": max(round(shape.input_tokens), 1),
        "outputTokens": max(round(shape.output_tokens), 1),
    }
    spec: dict[str, object] = {"model": {"source": "hf://simulated/model"}}
    class_name, count, nodes = CLASS, 1, 1
    if subject is not None:
        deployment, variant = subject
        spec = {"model": wire(deployment.spec.model), "engine": wire(deployment.spec.engine)}
        class_name, count, nodes = variant.accelerator.metadata.name, variant.per_node, variant.nodes
    declared = max(round(scenario.capacity * 60), 1)
    accelerator = {"class": class_name, "count": count, "nodes": nodes, "requestsPerMinute": declared}
    if scaling is None:
        bounds = {"min": min(scenario.minimum, 1000), "max": min(max(scenario.maximum, 1), 1000)}
        scaling = Scaling.model_validate(bounds | {"slo": _objective(scenario, shape)})
    return LLMDeployment.model_validate(
        {
            "metadata": {
                "name": name,
                "namespace": namespace,
                "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {
                **spec,
                "placement": {"accelerators": [accelerator]},
                "load": load,
                # What it advises is carried out, whoever would do so in a cluster.
                "scaling": wire(scaling.model_copy(update=ACTED_ON)),
            },
        }
    )


def _objective(scenario: Scenario, shape: LoadShape) -> dict[str, str]:
    """Return the objective at the mean request: a spec has one limit for prompts of all lengths."""
    objective = scenario.objective
    first = objective.first_token_base + objective.first_token_per_input_token * shape.input_tokens
    # Within the bounds of the API.
    first, inter_token = min(max(first, 0.05), 300.0), min(max(objective.inter_token, 0.001), 10.0)
    return {
        "timeToFirstToken": f"{round(first * 1000)}ms",
        "interTokenLatency": f"{round(inter_token * 1000)}ms",
    }
