"""What the choice between own deployments and providers is made from, and what comes of it. Plain values."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from modelyard.core.load import LoadShape
from modelyard.core.scaling.attainment import MissPolicy
from modelyard.core.scaling.headroom import HeadroomPolicy
from modelyard.core.variants import DEFAULT_START_TIME

TOKENS = 1_000_000
"""Tokens that a price is for."""


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """Where requests may go."""

    kind: Literal["Deployment", "Provider"]
    name: str
    """`namespace/name` of the deployment, or the name of the provider's model."""

    @property
    def own(self) -> bool:
        """Whether it is a deployment."""
        return self.kind == "Deployment"


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """What a provider asks, in US dollars for a million tokens."""

    input: float
    output: float
    cached: float | None = None
    """Input tokens that the provider's prompt cache answers; None: they cost what other input does."""

    def per_request(self, mix: LoadShape) -> float:
        """Return US dollars for the mean request."""
        cached = mix.input_tokens * mix.cached_share
        cheaper = self.input if self.cached is None else self.cached
        paid = (mix.input_tokens - cached) * self.input + cached * cheaper + mix.output_tokens * self.output
        return paid / TOKENS


@dataclass(frozen=True, slots=True)
class ProviderTarget:
    """A model of a provider."""

    name: str
    price: TokenPrice | None
    """None: not known. It is never chosen then: external spend that nobody can count is refused."""
    quality: float | None = None
    """On the scale of the route's `minQuality`; None: not stated."""


@dataclass(frozen=True, slots=True)
class OwnTarget:
    """A deployment, as one route sees it."""

    deployment: str
    """`namespace/name`."""
    capacity: float
    """Requests per second of the route's mix that one replica answers within the objective; 0: not even one."""
    quality: float | None = None
    """On the scale of the route's `minQuality`; None: not stated."""


@dataclass(frozen=True, slots=True)
class RouteLoad:
    """The requests that come for a route, per second."""

    now: float
    ahead: float
    """One start time from now."""
    deviation: float
    """Standard deviation of what comes around that: the forecast's error and bursts (`Headroom.deviation`)."""
    trend: float = 0.0
    """Requests per second that come more with each second, as the last ten minutes show it; below 0: less."""

    def after(self, seconds: float) -> "RouteLoad":
        """Return the load so many seconds after one start time from now, if it goes on as it does."""
        return self._steady(max(self.ahead + self.trend * seconds, 0.0))

    def at_once(self) -> "RouteLoad":
        """Return the load as if it stayed what it is now."""
        return self._steady(self.now)

    def _steady(self, rate: float) -> "RouteLoad":
        return RouteLoad(rate, rate, math.sqrt(self.variance(rate)), self.trend)

    def variance(self, rate: float) -> float:
        """Return the variance around another rate: in proportion to it, as that of counts is."""
        return self.deviation**2 * (rate / self.ahead if self.ahead > 0 else 1.0)


@dataclass(frozen=True, slots=True)
class RouteInput:
    """A route whose requests go where they cost least."""

    name: str
    """`namespace/name`."""
    mix: LoadShape
    """The mean request, as observed."""
    load: RouteLoad | None
    """None: the counters are not known."""
    own: tuple[OwnTarget, ...] = ()
    providers: tuple[ProviderTarget, ...] = ()
    minimum_quality: float | None = None
    sovereign: bool = False
    """Whether requests may never leave the own fleet (`dataPolicy: Sovereign`)."""
    spill: bool = True
    """Whether requests may go to a provider while replicas are missing."""


@dataclass(frozen=True, slots=True)
class DeploymentInput:
    """A deployment that routes may send to."""

    name: str
    """`namespace/name`."""
    price: float | None
    """US dollars per hour and replica; None: not known."""
    maximum: int
    """Replicas. 0: it may not run (suspended, say)."""
    minimum: int = 0
    """Replicas that run whatever is decided here."""
    stand_in: float = 0.0
    """US dollars per hour and replica to decide with where the price is not known (`Variant.stand_in`)."""
    billing: Literal["PerHour", "Committed"] = "PerHour"
    contested: bool = False
    """Whether another model would use the accelerators of a replica that goes."""
    serving: int = 0
    present: int = 0
    """Replicas, those that start included."""
    used: float = 0.0
    """Work of requests that are not decided here (names of its own, routes by weight), in replicas at capacity."""
    used_deviation: float = 0.0
    """Standard deviation of that, in replicas."""
    start_time: float = DEFAULT_START_TIME
    """Seconds from a new replica to its first answer, as measured."""
    missed: float | None = None
    """Share of requests that its size is planned to miss now, as the size rule has learned it; None: the policy's."""

    def plan(self, policy: "BreakEvenPolicy") -> "BreakEvenPolicy":
        """Return the policy with the share that its size is planned to miss.

        A cost of other replicas than the size rule will run would be beside the truth, and asking for them would keep
        more than it does.
        """
        return policy if self.missed is None else replace(policy, missed=self.missed)

    @property
    def hourly(self) -> float:
        """US dollars per hour and replica to decide with."""
        return self.stand_in if self.price is None else self.price

    @property
    def avoidable(self) -> float:
        """US dollars per hour that are saved by one replica less.

        Committed accelerators are paid for in any case: only another model's use of them is worth something.
        """
        return self.hourly if self.billing == "PerHour" or self.contested else 0.0


@dataclass(frozen=True, slots=True)
class BreakEvenPolicy:
    """How costs become a choice."""

    horizon: float = 3600.0
    """Seconds: one decision horizon. A change is charged the start that it throws away, spread over this time: our
    choice, 30 starts of 120 s, so that changes cost at most about 3 % of what a replica does, whatever the noise."""
    band: float = 0.02
    """Share by which the present target may cost more for ever. Below what prices and mixes are known to: half of the
    4 % to which 120 s of Poisson arrivals at 5 requests/s tell their mean."""
    evidence: float = 0.02
    """Part of a start's cost that the present target must have cost too much before it is left, once a whole horizon
    has passed since the last change; right after a change it is the whole (the ski-rental rule: Karlin, Manasse,
    Rudolph and Sleator, Algorithmica 3, 1988). Our choice: simulated days of 2 to 24 hours are mostly followed within
    one start time, with 0.05 a whole day's slow ramps are not, and a load that stays at the break-even changes the
    target as often with either, once in two hours."""
    foreseen: float = 0.005
    """The same for a change to a provider, which pays no start, where the trend of the load foretells that it will pay
    (`outlook.py`): a little, so that noise does not choose the moment. Our choice: on simulated ramps of one to four
    hours changes are then neither early nor late on the whole."""
    returns: float = 2.0
    """Times the start's cost that a change must be worth before the forecast load makes the other target the cheaper
    one again: whoever follows such a change one start late still gains by it."""
    calm: float = 21_600.0
    """Seconds, time constant after which a change is forgotten: a quarter of a day, so that a morning's change does not
    delay the evening's. Each change that is not forgotten doubles the horizon."""
    longest_gap: float = 60.0
    """Seconds between two decisions beyond which what the time between them cost is not known, and counts for nothing.
    The operator reads every 2 s."""
    missed: float = field(default_factory=lambda: HeadroomPolicy().missed)
    """Share of requests that a fleet is planned to miss, until the size rule has learned another."""
    misses: MissPolicy = field(default_factory=MissPolicy)


@dataclass(frozen=True, slots=True)
class BreakEvenInput:
    """Everything that is decided on at one moment."""

    routes: tuple[RouteInput, ...]
    deployments: tuple[DeploymentInput, ...]

    def check(self) -> None:
        """Raise ValueError for what cannot be decided on; the sentence names the field and the remedy."""
        names = {deployment.name for deployment in self.deployments}
        _check_unique("deployments", [deployment.name for deployment in self.deployments])
        _check_unique("routes", [route.name for route in self.routes])
        for name, value in self._figures():
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value}: give a finite number of 0 or more")
        for route in self.routes:
            _check_unique(f"own of {route.name}", [target.deployment for target in route.own])
            _check_unique(f"providers of {route.name}", [target.name for target in route.providers])
            for target in route.own:
                if target.deployment not in names:
                    raise ValueError(
                        f"own of {route.name} names {target.deployment}, which is not among deployments: add it"
                    )
            if route.mix.cached_share > 1:
                raise ValueError(
                    f"mix.cached_share of {route.name} is {route.mix.cached_share}: give a share from 0 to 1"
                )

    def _figures(self) -> Iterator[tuple[str, float]]:
        for route in self.routes:
            mix = route.mix
            yield f"mix.input_tokens of {route.name}", mix.input_tokens
            yield f"mix.output_tokens of {route.name}", mix.output_tokens
            yield f"mix.cached_share of {route.name}", mix.cached_share
            if route.load is not None:
                yield f"load.now of {route.name}", route.load.now
                yield f"load.ahead of {route.name}", route.load.ahead
                yield f"load.deviation of {route.name}", route.load.deviation
            for own in route.own:
                yield f"capacity of {own.deployment} for {route.name}", own.capacity
            for provider in route.providers:
                price = provider.price
                for value in () if price is None else (price.input, price.output, price.cached or 0.0):
                    yield f"price of {provider.name}", value
        for item in self.deployments:
            yield f"price of {item.name}", item.hourly
            yield f"minimum of {item.name}", item.minimum
            yield f"maximum of {item.name}", item.maximum
            yield f"used of {item.name}", item.used
            yield f"used_deviation of {item.name}", item.used_deviation
            yield f"start_time of {item.name}", item.start_time
            yield f"missed of {item.name}", item.missed or 0.0


def _check_unique(field_name: str, names: list[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"{field_name} has {name} twice: name it once")
