"""US dollars per million tokens, from the accelerators held and the tokens served."""

from decimal import Decimal

import pytest

from modelyard.core.cost import TokenMemory, cost_per_million, observe_tokens, token_rate
from modelyard.core.coststatus import format_price, hourly_cost
from modelyard.core.plan import DeploymentPlan, Placement, VariantPlan
from modelyard.core.snapshot import GatewayReading
from tests.unit.core.build import KEY, make_accelerator, make_placement, make_pod, make_variant


def test_tokens_of_a_deployment_and_its_adapters_count_both_ways():
    memory = TokenMemory()
    for time, tokens in [(0.0, 0.0), (10.0, 100.0)]:
        reading = GatewayReading(
            time,
            output_tokens={KEY: tokens, f"{KEY}:lora": tokens, "team/llama2": 1e9 * time},
            input_tokens={KEY: 3 * tokens},
        )
        memory = observe_tokens(memory, reading, KEY)
    assert token_rate(memory) == pytest.approx(50.0)


def test_one_reading_makes_no_rate():
    assert token_rate(observe_tokens(TokenMemory(), GatewayReading(0.0), KEY)) is None


def test_cost_is_what_is_held_over_what_is_served():
    # 3.6 million tokens an hour for 1.80 dollars.
    assert cost_per_million(Decimal("1.8"), 1000.0) == Decimal("0.5")


@pytest.mark.parametrize(("hourly", "rate"), [(None, 10.0), (Decimal(1), None), (Decimal(1), 0.0)])
def test_cost_is_unknown_without_price_or_traffic(hourly: Decimal | None, rate: float | None):
    assert cost_per_million(hourly, rate) is None


def test_every_accelerator_held_is_paid_used_or_not():
    plan = DeploymentPlan(KEY, placement=make_placement(make_variant(make_accelerator(price="0.8"), 2)))
    pods = (
        make_pod("serving"),
        make_pod("loading", ready=False),
        make_pod("leaving", terminating=True),
        make_pod("unscheduled", scheduled=False, phase="Pending"),
        make_pod("done", phase="Succeeded"),
    )
    assert hourly_cost(plan, pods) == Decimal("4.8")


def test_without_a_price_there_is_no_cost():
    plan = DeploymentPlan(KEY, placement=make_placement(make_variant(make_accelerator(price=None))))
    assert hourly_cost(plan, (make_pod(),)) is None
    assert hourly_cost(DeploymentPlan(KEY), (make_pod(),)) is None


def test_each_variant_costs_its_own_price():
    cheap, dear = make_variant(), make_variant(make_accelerator("h100", price="6.88"))
    placement = Placement(dear, (VariantPlan(dear, 1, 1), VariantPlan(cheap, 1, 1)))
    pods = (
        make_pod("a", variant=cheap.name),
        make_pod("b", variant=dear.name),
        make_pod("c", variant="gone"),
    )
    assert hourly_cost(DeploymentPlan(KEY, placement=placement), pods) == Decimal("14.56")


@pytest.mark.parametrize(
    ("value", "text"),
    [("100", "100"), ("0.5", "0.5"), ("0.123456", "0.1235"), ("0.00001", "0"), ("1e9", "999999")],
)
def test_prices_are_short_decimals(value: str, text: str):
    assert format_price(Decimal(value)) == text
