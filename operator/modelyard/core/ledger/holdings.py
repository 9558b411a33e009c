"""Which pods hold accelerators, at what price, and what tokens of providers cost."""

from collections.abc import Iterable, Mapping
from decimal import Decimal

from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.catalog.accelerators import describe
from modelyard.core.choice import unit_price
from modelyard.core.ledger.book import Holding, TokenPrice
from modelyard.core.plan import DeploymentPlan
from modelyard.core.routing import external_key
from modelyard.core.snapshot import Pod, Provider
from modelyard.core.variants import variant_name

_MILLION = Decimal(1_000_000)


def find_holdings(
    pods: Iterable[Pod], accelerators: Mapping[str, AcceleratorClass], plans: Mapping[str, DeploymentPlan]
) -> tuple[Holding, ...]:
    """Return the pods that are bound to a node and not finished, each with its price and capacity.

    A pod that leaves holds its accelerators until it is gone. `plans` are by `namespace/name`; without one the
    capacity is not known.
    """
    held = (pod for pod in pods if pod.scheduled and pod.phase in {"Pending", "Running"})
    return tuple(_hold(pod, accelerators.get(pod.accelerator), plans.get(pod.deployment)) for pod in held)


def find_prices(providers: Mapping[str, Provider]) -> dict[str, TokenPrice]:
    """Return the prices of providers' models, by `external_key`. Models without a price are left out."""
    prices = {}
    for name, provider in providers.items():
        for model in provider.object.spec.models:
            if (price := model.price) is None:
                continue
            cached = price.cached_input_per_million
            prices[external_key(name, model.name)] = TokenPrice(
                float(Decimal(price.input_per_million) / _MILLION),
                float(Decimal(price.input_per_million if cached is None else cached) / _MILLION),
                float(Decimal(price.output_per_million) / _MILLION),
            )
    return prices


def _hold(pod: Pod, accelerator: AcceleratorClass | None, plan: DeploymentPlan | None) -> Holding:
    count = sum(pod.accelerators.values()) or 1
    placed = plan.placement.variants if plan is not None and plan.placement is not None else ()
    capacity = next((item.variant.capacity for item in placed if item.variant.name == pod.variant), 0.0)
    price = None
    if accelerator is not None:
        spot = pod.variant == variant_name(pod.accelerator, count, spot=True)
        price = unit_price(accelerator, describe(accelerator), spot=spot)
    return Holding(
        pod.deployment, pod.created, count, None if price is None else float(price) * count, capacity
    )
