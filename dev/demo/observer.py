"""Watches the demo: once a second, what the deployments' status and the gateway's counters say."""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import aiohttp
import urllib3
from kubernetes.client import ApiException

from dev.demo.kube import Cluster
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.gateway.counters import GatewayCounters, read_counters

SAMPLE_INTERVAL_S = 1.0
"""Seconds between samples: the operator's own decisions are seconds apart."""

RATE_WINDOW_S = 10.0
"""Seconds that a shown rate is the mean of."""


@dataclass(frozen=True, slots=True)
class ModelView:
    """One model at one moment."""

    deployment: str
    """Name of the LLMDeployment."""
    model: str
    """The name that clients send."""
    desired: int
    ready: int
    state: str
    reason: str
    message: str
    requests_per_s: float = 0.0
    tokens_per_s: float = 0.0
    """Prompt and answer."""
    usd_per_hour: float = 0.0
    usd_per_million_tokens: float | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """All models at one moment."""

    at_s: float
    """Seconds since the observer began."""
    models: tuple[ModelView, ...] = ()

    def model(self, name: str) -> ModelView | None:
        """Return the model that clients know by this name."""
        return next((model for model in self.models if model.model == name), None)


@dataclass(frozen=True, slots=True)
class _Totals:
    """Counters at one moment, by `namespace/name` of the deployment."""

    at_s: float
    arrivals: Mapping[str, float] = field(default_factory=dict)
    tokens: Mapping[str, float] = field(default_factory=dict)


class Observer:
    """Collects samples; run it as a task beside what is observed."""

    def __init__(self, cluster: Cluster, namespace: str, stats_url: str) -> None:
        self.samples: list[Sample] = []
        self._cluster = cluster
        self._namespace = namespace
        self._stats_url = stats_url
        self._totals: deque[_Totals] = deque()
        self._began = time.monotonic()

    @property
    def latest(self) -> Sample:
        """The newest sample; an empty one before the first."""
        return self.samples[-1] if self.samples else Sample(0.0)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the observer began."""
        return time.monotonic() - self._began

    async def run(self) -> None:
        """Sample until cancelled; a second in which API or gateway do not answer leaves no sample."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            while True:
                began = time.monotonic()
                # A gap shows in the report; the demo's verdict rests on the client's own records.
                with suppress(aiohttp.ClientError, TimeoutError, ApiException, urllib3.exceptions.HTTPError):
                    await self._sample(session)
                await asyncio.sleep(max(0.0, SAMPLE_INTERVAL_S - (time.monotonic() - began)))

    async def wait_for(self, model: str, *, ready: int, timeout_s: float) -> bool:
        """Wait until the model has exactly this many replicas, wanted and ready; tell whether it came so."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            view = self.latest.model(model)
            if view is not None and view.ready == view.desired == ready:
                return True
            await asyncio.sleep(SAMPLE_INTERVAL_S)
        return False

    async def _sample(self, session: aiohttp.ClientSession) -> None:
        deployments = await asyncio.to_thread(self._cluster.llm_deployments, self._namespace)
        counters = await read_counters(session, self._stats_url)
        now = self.elapsed_s
        self._totals.append(_total(counters, now))
        while now - self._totals[0].at_s > RATE_WINDOW_S:
            self._totals.popleft()
        oldest, newest = self._totals[0], self._totals[-1]
        self.samples.append(
            Sample(now, tuple(_view(deployment, oldest, newest) for deployment in deployments))
        )


def _total(counters: GatewayCounters, now: float) -> _Totals:
    tokens: dict[str, float] = {}
    for series in (counters.prompt_tokens, counters.completion_tokens):
        for answered, count in series.items():
            tokens[answered.deployment] = tokens.get(answered.deployment, 0) + count
    return _Totals(now, dict(counters.arrivals), tokens)


def _view(deployment: LLMDeployment, oldest: _Totals, newest: _Totals) -> ModelView:
    status = deployment.status
    state, reason, message = _state(deployment)
    span_s = max(newest.at_s - oldest.at_s, SAMPLE_INTERVAL_S)

    def rate(before: Mapping[str, float], after: Mapping[str, float]) -> float:
        return max(0.0, after.get(deployment.key, 0) - before.get(deployment.key, 0)) / span_s

    cost = status.cost
    per_million = cost.per_million_tokens if cost else None
    return ModelView(
        deployment=deployment.metadata.name,
        model=deployment.served_name,
        desired=status.scaling.desired_replicas if status.scaling else status.replicas,
        ready=status.ready_replicas,
        state=state,
        reason=reason,
        message=message,
        requests_per_s=rate(oldest.arrivals, newest.arrivals),
        tokens_per_s=rate(oldest.tokens, newest.tokens),
        usd_per_hour=float(cost.per_hour) if cost else 0.0,
        usd_per_million_tokens=float(per_million) if per_million is not None else None,
    )


def _state(deployment: LLMDeployment) -> tuple[str, str, str]:
    """Return a word for the state, and the reason and sentence that the operator gives."""
    conditions = {condition.type: condition for condition in deployment.status.conditions}
    ready, stalled = conditions.get("Ready"), conditions.get("Stalled")
    scaling = deployment.status.scaling
    if stalled is not None and stalled.status == "True":
        return "Stalled", stalled.reason, stalled.message
    if ready is None:
        return "New", "", ""
    if scaling is not None and scaling.desired_replicas == 0:
        return "Asleep", scaling.reason, scaling.message
    if ready.status == "True":
        why = (scaling.reason, scaling.message) if scaling else (ready.reason, ready.message)
        return "Ready", *why
    return "Starting", ready.reason, ready.message
