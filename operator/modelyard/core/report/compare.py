"""An own deployment against the prices of APIs."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Final, Literal

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.catalog.api_prices import ApiPrice, hosted_prices, load_api_prices
from modelyard.catalog.models import find_model
from modelyard.core.load import LoadShape
from modelyard.core.report.breakeven import Staircase, find_break_even, request_price
from modelyard.core.report.model import CENT, FINE, ApiComparison, Crossing, round_figure
from modelyard.core.report.running import HOURS_PER_DAY
from modelyard.core.report.steady import find_rate, find_service_time
from modelyard.core.scaling.rule import LoadPolicy
from modelyard.core.variants import Variant

REFERENCES: Final = (
    ("OpenAI", "gpt-5-mini"),
    ("Gemini", "gemini-2.5-flash"),
    ("Anthropic", "claude-haiku-4-5"),
    ("Perplexity", "sonar"),
)
"""One well-known model of each large provider, of the size that open models are compared with: provider and name."""

MINUTES_PER_DAY = 1440
SECONDS_PER_HOUR = 3600
_Kind = Literal["SameModel", "Reference", "Own"]


@dataclass(frozen=True, slots=True)
class OwnPrice:
    """A price that the user gives."""

    price: ApiPrice
    deployment: str | None = None
    """`namespace/name` of the only deployment that it is for; None: for all."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What the deployment costs, at the stated load and at any other."""

    variants: tuple[Variant, ...]
    """Those that may carry it."""
    shape: LoadShape
    policy: LoadPolicy
    """How a load becomes capacity."""
    rate: float | None = None
    """Requests per minute; None: not stated."""
    per_day: Decimal | None = None
    """US dollars, at the rate; None: not known."""


def compare_prices(
    deployment: LLMDeployment, costs: Costs, own: Iterable[OwnPrice]
) -> tuple[ApiComparison, ...]:
    """Return the comparison with each price of interest; none where no variant's own price is known.

    The break-even is that of the cheapest variant at each volume, replicas of one variant at a time, sized as the
    decision sizes them.
    """
    priced = [item for item in costs.variants if item.price is not None and _may_carry(deployment, item)]
    if not priced:
        return ()
    scaling, fixed = deployment.spec.scaling, deployment.spec.replicas or 0
    # A model that sleeps costs nothing then, but answers nothing either: for any volume at least one replica runs.
    least, most = (max(scaling.min, 1), scaling.max) if scaling is not None else (fixed, fixed)
    staircases = [_staircase(variant, max(least, 1), max(most, 1), costs.policy) for variant in priced]
    return tuple(
        _compare(_Offer(price, kind, note), priced, staircases, costs)
        for price, kind, note in _select(deployment, own)
    )


def _staircase(variant: Variant, least: int, most: int, policy: LoadPolicy) -> Staircase:
    service_time = find_service_time(variant)

    @cache
    def answered(replicas: int) -> float:
        return find_rate(variant.capacity * replicas, service_time, policy) * SECONDS_PER_HOUR

    return Staircase(price=float(variant.price or 0), answered=answered, minimum=least, maximum=most)


def _may_carry(deployment: LLMDeployment, variant: Variant) -> bool:
    """Return whether all replicas may be of the variant: not of a spot one while some must be on demand."""
    spot = deployment.spec.placement.spot
    return not variant.spot or (spot is not None and spot.on_demand_base == 0)


def _select(deployment: LLMDeployment, own: Iterable[OwnPrice]) -> Iterator[tuple[ApiPrice, _Kind, str]]:
    for item in own:
        if item.deployment in (None, deployment.key):
            yield item.price, "Own", ""
    hosted = _hosted(deployment.spec.model.source)
    if hosted:
        yield hosted[0], "SameModel", "cheapest" if len(hosted) > 1 else ""
    if len(hosted) > 1:
        yield hosted[-1], "SameModel", "dearest"
    known = {(price.provider, price.model): price for price in load_api_prices()}
    for name in REFERENCES:
        if name in known:
            yield known[name], "Reference", ""


def _hosted(source: str) -> tuple[ApiPrice, ...]:
    """Return what providers ask for the model: under its own repository's name, else under one of the same model."""
    repository = source.partition("://")[2].partition("@")[0].partition(":")[0]
    if not source.startswith("hf://"):
        return ()
    model = find_model(source)
    names = (repository, *(model.repositories if model is not None else ()))
    return next((found for name in names if (found := hosted_prices(name))), ())


@dataclass(frozen=True, slots=True)
class _Offer:
    price: ApiPrice
    kind: _Kind
    note: str


def _compare(
    offer: _Offer, variants: Sequence[Variant], staircases: Sequence[Staircase], costs: Costs
) -> ApiComparison:
    price, shape = offer.price, costs.shape
    each = request_price(price, shape)
    tokens = shape.input_tokens + shape.output_tokens
    found = find_break_even(staircases, float(each))
    crossing = None
    if found is not None:
        crossing = Crossing(
            requests_per_minute=_per_minute(found.first),
            tokens_per_day=round(found.first * HOURS_PER_DAY * tokens),
            runs_on=variants[found.variant].label,
            crossings=found.crossings,
            always_from_requests_per_minute=_per_minute(found.last),
            until_requests_per_minute=None if found.until is None else _per_minute(found.until),
        )
    per_day = None if costs.rate is None else each * Decimal(costs.rate) * MINUTES_PER_DAY
    cheaper: Literal["Deployment", "Api"] | None = None
    if per_day is not None and costs.per_day is not None:
        cheaper = "Deployment" if costs.per_day <= per_day else "Api"
    return ApiComparison(
        provider=price.provider,
        model=price.model,
        kind=offer.kind,
        note=offer.note,
        input_per_million=price.input_per_million,
        output_per_million=price.output_per_million,
        per_million_tokens=(each / Decimal(tokens) * 1_000_000).quantize(FINE),
        per_day=None if per_day is None else per_day.quantize(CENT),
        cheaper=cheaper,
        break_even=crossing,
        source=price.source,
        date=price.date,
    )


def _per_minute(per_hour: float) -> float:
    return round_figure(per_hour / 60)
