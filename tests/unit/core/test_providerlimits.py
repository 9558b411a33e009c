"""What is left of a provider's limits, and until when it gets no requests."""

import pytest

from modelyard.api.llmprovider import ProviderLimits
from modelyard.core.answering import Attempts
from modelyard.core.budget.decide import RuleMemory, apply_budgets
from modelyard.core.budget.judge import judge_budgets
from modelyard.core.budget.rules import divide
from modelyard.core.providerlimits import (
    LimitMemory,
    ReachedLimit,
    count_limits,
    find_reached,
    sum_use,
    was_reached,
)
from modelyard.core.routing import BudgetRule, Exhausted, Route, RouteRule, WeightedTarget
from modelyard.core.snapshot import GatewayReading, Provider
from tests.unit.core.budgetcases import LARGE, NOW, OWN, budget, line, route, spent
from tests.unit.core.build import make_provider

READ = 2.0
"""Seconds between two readings."""


class Meter:
    """A provider with limits, read again and again."""

    def __init__(self, requests: int | None = 60, tokens: int | None = None) -> None:
        self.now = NOW
        self.sent, self.tokens = 1000, 10**6
        self.memory: dict[str, LimitMemory] = {}
        self.limit(requests, tokens)
        self.read()

    def limit(self, requests: int | None, tokens: int | None) -> None:
        limits = ProviderLimits(requests_per_minute=requests, tokens_per_minute=tokens)
        made = make_provider("acme").object
        spec = made.spec.model_copy(update={"limits": limits})
        self.providers = {"acme": Provider(made.model_copy(update={"spec": spec}))}

    def read(self, sent: int = 0, tokens: int = 0, seconds: float = READ) -> None:
        self.now += seconds
        self.sent, self.tokens = self.sent + sent, self.tokens + tokens
        reading = GatewayReading(
            self.now,
            input_tokens={LARGE: float(self.tokens), OWN: 1e9},
            attempts={LARGE: Attempts(sent=self.sent)},
        )
        self.memory = count_limits(self.memory, self.providers, reading, self.now)

    @property
    def reached(self) -> ReachedLimit | None:
        return next(iter(find_reached(self.memory)), None)


def test_what_was_sent_before_the_first_reading_is_not_charged() -> None:
    assert Meter().reached is None


def test_a_minutes_worth_may_go_at_once_and_then_the_provider_rests() -> None:
    meter = Meter(requests=60)
    meter.read(sent=59)
    assert meter.reached is None
    meter.read(sent=4)
    # 63 went and 2 came back: nothing is left, a debt of one is to be paid, and six must be there.
    assert meter.reached == ReachedLimit("acme", "requests", 60, int(meter.now) + 7)
    until = meter.reached.until
    while meter.now + READ < until:
        meter.read()
        assert meter.reached is not None
        assert meter.reached.until == until, "the table changes once"
    meter.read()
    assert meter.reached is None


@pytest.mark.parametrize("sent", [0, 61])
def test_a_clock_that_is_set_back_closes_no_provider_for_long(sent: int) -> None:
    meter = Meter()
    meter.read(sent=sent)
    meter.read(seconds=-3600.0)
    meter.read(sent=61 - sent)
    assert meter.reached is not None
    assert meter.reached.until <= meter.now + 10
    for _ in range(5):
        meter.read()
    assert meter.reached is None


def test_tokens_are_paid_off_however_many_an_answer_had() -> None:
    meter = Meter(requests=None, tokens=6000)
    meter.read(sent=1, tokens=18_000)
    # A minute's worth was there: 12,000 tokens of debt are two minutes, and a tenth must be there.
    assert meter.reached is not None
    assert meter.reached.kind == "tokens"
    assert meter.reached.until - meter.now == pytest.approx(126, abs=1)


def test_answers_that_end_while_it_rests_make_it_rest_longer() -> None:
    meter = Meter(requests=None, tokens=6000)
    meter.read(tokens=6000)
    first = meter.reached
    assert first is not None
    meter.read(tokens=600)
    meter.read(seconds=first.until - meter.now)
    assert meter.reached is not None
    assert meter.reached.until - first.until == pytest.approx(6, abs=1)


def test_in_the_long_run_no_more_than_the_limit_goes() -> None:
    meter = Meter(requests=60)
    begin = meter.sent
    for _ in range(900):
        meter.read(sent=0 if meter.reached else 20)
    # Half an hour's worth, the minute that was there, and what one reading is beyond.
    assert 30 * 60 <= meter.sent - begin <= 31 * 60 + 20


def test_other_limits_count_at_once_and_none_forget_everything() -> None:
    meter = Meter(requests=60)
    meter.read(sent=90)
    assert meter.reached is not None
    meter.limit(600, None)
    meter.read()
    assert meter.reached is None
    assert was_reached(meter.memory["acme"], meter.now)
    assert not was_reached(meter.memory["acme"], meter.now + 300)
    meter.providers = {"acme": make_provider("acme")}
    meter.read()
    assert meter.memory == {}


def test_no_reading_is_no_use() -> None:
    assert count_limits({}, Meter().providers, None, NOW) == {}


def test_use_is_that_of_all_models_with_estimates() -> None:
    reading = GatewayReading(
        NOW,
        input_tokens={LARGE: 10.0, OWN: 99.0},
        output_tokens={"provider:acme/small": 5.0},
        estimated_tokens={LARGE: 3.0},
        attempts={LARGE: Attempts(sent=4, failed=1), "provider:acme/small": Attempts(sent=2)},
    )
    use = sum_use(reading)
    assert {name: (item.requests, item.tokens) for name, item in use.items()} == {"acme": (6, 18)}


REACHED = ReachedLimit("acme", "requests", 60, int(NOW) + 8)


def limited(*targets: str, limit: ReachedLimit = REACHED) -> BudgetRule:
    (made,) = apply_budgets((route(*targets),), (), {LARGE: 0.02}, limits=(limit,))
    (rule,) = made.budgets
    return rule


def test_a_used_up_limit_takes_the_provider_away_for_a_moment() -> None:
    rule = limited(OWN, LARGE)
    assert (rule.tenant, rule.closed, rule.without, rule.unknown) == (None, False, (LARGE,), (LARGE,))
    alone = limited(LARGE)
    assert alone.refusal == Exhausted(REACHED.sentence, REACHED.until, limited=True)
    (other,) = apply_budgets((route(OWN),), (), {}, limits=(REACHED,))
    assert other.budgets == ()


def test_where_nothing_else_is_left_the_client_is_told_when_to_ask_again() -> None:
    made = Route("team/chat@route", ("chat",), (WeightedTarget(LARGE),), (RouteRule((WeightedTarget(OWN),)),))
    (changed,) = apply_budgets((made,), (), {}, limits=(REACHED,))
    rest, named = divide(changed)
    assert named == ()
    assert rest.exhausted == Exhausted(REACHED.sentence, REACHED.until, limited=True)
    assert rest.rules[0].exhausted is None


def test_a_spent_budget_beside_it_is_no_matter_of_a_moment() -> None:
    standings = judge_budgets((budget(scope={"providers": ["acme"]}),), spent(line(100, target=LARGE)), NOW)
    (made,) = apply_budgets((route(LARGE),), standings, {LARGE: 0.02}, limits=(REACHED,))
    (rule,) = made.budgets
    assert (rule.without, rule.unknown) == ((LARGE,), ())
    assert rule.refusal is not None
    assert not rule.refusal.limited
    assert rule.refusal.until is not None
    assert rule.refusal.until > REACHED.until, "the provider can be asked when both allow it"


def test_routes_change_only_when_the_limit_does() -> None:
    memory = RuleMemory()
    (first,) = apply_budgets((route(LARGE),), (), {}, memory=memory, limits=(REACHED,))
    (again,) = apply_budgets((route(LARGE),), (), {}, memory=memory, limits=(REACHED,))
    assert first.budgets is again.budgets
    (gone,) = apply_budgets((first,), (), {}, memory=memory)
    assert gone.budgets == ()
