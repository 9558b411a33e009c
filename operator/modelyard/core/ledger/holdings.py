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
    # A fleet has thousands of pods and a few kinds of them, and this is asked every few seconds.
    prices: dict[tuple[str, str, int], float | None] = {}
    capacities: dict[tuple[str, str], float] = {}
    found = []
    for pod in pods:
        if not pod.scheduled or pod.phase not in {"Pending", "Running"}:
            continue
        count = sum(pod.accelerators.values()) or 1
        kind = (pod.accelerator, pod.variant, count)
        if kind not in prices:
            prices[kind] = _price(accelerators.get(pod.accelerator), pod.variant, count)
        owner = (pod.deployment, pod.variant)
        if owner not in capacities:
            capacities[owner] = _capacity(plans.get(pod.deployment), pod.variant)
        # Each pod of a group holds its own accelerators, and the group answers as one.
        capacity = capacities[owner] / pod.nodes
        found.append(Holding(pod.deployment, pod.created, count, prices[kind], capacity))
    return tuple(found)


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


def _price(accelerator: AcceleratorClass | None, variant: str, count: int) -> float | None:
    if accelerator is None:
        return None
    spot = variant == variant_name(accelerator.metadata.name, count, spot=True)
    price = unit_price(accelerator, describe(accelerator), spot=spot)
    return None if price is None else float(price) * count


def _capacity(plan: DeploymentPlan | None, variant: str) -> float:
    placed = plan.placement.variants if plan is not None and plan.placement is not None else ()
    return next((item.variant.capacity for item in placed if item.variant.name == variant), 0.0)
