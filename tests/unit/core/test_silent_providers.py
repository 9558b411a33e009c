"""Routes whose provider does not answer: where their requests go meanwhile, and how they come back."""

from dataclasses import replace

import pytest

from modelyard.core.answering import AnswerMemory, Attempts, Silence
from modelyard.core.limits.account import Limits, open_account
from modelyard.core.providerlimits import LimitMemory, ProviderUse, ReachedLimit, provider_limits
from modelyard.core.providers import build_provider_status
from modelyard.core.reasons import Code, Reason
from modelyard.core.routing import BudgetRule, Exhausted, WeightedTarget
from tests.unit.core.build import KEY, NOW, make_provider
from tests.unit.core.test_routeplan import API, LARGE, NAME, OWN, PRICE, ROUTE, make_stage

SILENT = Reason(Code.PROVIDER_FAILING, "acme/large does not answer")
SMALL = {"provider": "acme", "model": "small"}
SECOND = "provider:acme/small"


def silence(stage, *keys, tried=()):
    """Let these models be silent from the next reading on."""
    stage.snapshot = replace(stage.snapshot, silent=dict.fromkeys(keys, SILENT), tried=frozenset(tried))


def weights(stage):
    return {target.upstream: target.weight for target in stage.decided(ROUTE).targets}


def test_requests_go_to_the_fleet_while_the_provider_is_silent_and_come_back():
    stage = make_stage(start=30.0)
    stage.run(120, {NAME: 0.5})
    since = stage.decided(ROUTE).since
    silence(stage, API)
    stage.run(6, {NAME: 0.5})
    plan = stage.decided(ROUTE)
    # Cost has not changed its mind, and the status says why something else answers.
    assert plan.choice.target.name == API
    assert plan.choice.reason == Reason(SILENT.code, f"goes to {KEY} for now: {SILENT.message}")
    assert plan.targets == (
        WeightedTarget(API, 0, standby=True, wanted=0),
        WeightedTarget(KEY, 10, wanted=1),
    )
    assert stage.replicas(KEY) == 1
    stage.run(60, {NAME: 0.5})
    assert stage.replicas(KEY) == 1, "it answers as long as that lasts"
    silence(stage)
    stage.run(4, {NAME: 0.5})
    plan = stage.decided(ROUTE)
    assert (plan.choice.target.name, plan.since) == (API, since)
    assert weights(stage) == {API: 10, KEY: 0}
    assert [name for _, name in stage.changes] == [API]


def test_a_tenth_tries_it_again_once_others_can_answer_what_fails():
    stage = make_stage(start=30.0)
    stage.run(120, {NAME: 0.5})
    silence(stage, API, tried=[API])
    stage.run(6, {NAME: 0.5})
    assert weights(stage) == {API: 0, KEY: 10}, "nothing serves yet that could take what fails"
    stage.run(40, {NAME: 0.5})
    assert weights(stage) == {API: 1, KEY: 9}
    (wanted,) = [target.wanted for target in stage.decided(ROUTE).targets if target.upstream == KEY]
    assert wanted == 1


def test_the_next_cheapest_provider_comes_first():
    stage = make_stage(OWN, LARGE, SMALL, start=30.0)
    model = {"name": "small", "price": {"inputPerMillion": "0.2", "outputPerMillion": "0.6"}}
    provider = make_provider("acme", {"name": "large", "price": PRICE}, model)
    stage.snapshot = replace(stage.snapshot, providers={"acme": provider})
    stage.run(120, {NAME: 0.2})
    assert stage.decided(ROUTE).choice.target.name == API
    silence(stage, API, tried=[API])
    stage.run(4, {NAME: 0.2})
    # Another provider can take what fails at once.
    assert weights(stage) == {API: 1, SECOND: 9, KEY: 0}
    assert stage.replicas(KEY) == 0


def test_where_nothing_else_is_left_the_provider_is_asked_all_the_same():
    stage = make_stage(LARGE, SMALL)
    model = {"name": "small", "price": {"inputPerMillion": "0.2", "outputPerMillion": "0.6"}}
    provider = make_provider("acme", {"name": "large", "price": PRICE}, model)
    stage.snapshot = replace(stage.snapshot, providers={"acme": provider})
    silence(stage, API, SECOND)
    stage.run(120, {NAME: 0.5})
    assert weights(stage) == {API: 10, SECOND: 0}


@pytest.mark.parametrize("policy", ["LowestCost", "Priority"])
def test_nothing_spills_to_it(policy):
    stage = make_stage(start=20.0, policy=policy)
    stage.serve(KEY, 1)
    stage.run(120, {NAME: 3.0})
    silence(stage, API)
    stage.run(10, {NAME: 14.0})
    assert stage.decided(ROUTE).spilled == 0.0
    assert weights(stage)[KEY] > 0
    assert not stage.plan.asked[KEY].relieved


def test_a_priority_route_keeps_its_order():
    """Envoy goes on to the next target request by request; the spec says what is asked first."""
    stage = make_stage(LARGE, OWN, policy="Priority")
    stage.serve(KEY, 1)
    silence(stage, API)
    stage.run(20, {NAME: 0.5})
    assert stage.route(ROUTE).priority
    assert stage.route(ROUTE).targets[0].upstream == API


def test_a_used_up_limit_changes_where_requests_go_and_not_what_was_chosen():
    stage = make_stage(start=30.0)
    stage.run(120, {NAME: 0.5})
    refusal = Exhausted("Provider acme is asked for no more.", int(NOW) + 999, limited=True)
    stage.budgets = (BudgetRule(without=(API,), unknown=(API,), refusal=refusal),)
    stage.build()
    stage.run(6, {NAME: 0.5})
    plan = stage.decided(ROUTE)
    assert plan.choice.target.name == API
    assert plan.choice.reason.code == Code.LIMIT_REACHED
    assert weights(stage) == {API: 0, KEY: 10}


def conditions(status):
    return {item.type: (item.status, item.reason) for item in status.conditions}


def test_the_status_tells_whether_a_provider_answers_and_keeps_what_stood_while_nothing_is_known():
    provider = make_provider("acme", {"name": "large"}, {"name": "small"}).object
    assert conditions(build_provider_status(provider, None, NOW)) == {"Ready": ("True", Code.CONFIGURED)}
    asked = AnswerMemory(((NOW, Attempts(sent=1, answered=1)),), moved=NOW)
    status = build_provider_status(provider, None, NOW, {API: asked})
    assert conditions(status)["Answering"] == ("True", Code.PROVIDER_ANSWERS)
    gone = replace(asked, silence=Silence(SILENT, NOW, 30.0, NOW + 30, Attempts()))
    status = build_provider_status(provider, None, NOW, {API: gone, SECOND: asked})
    assert conditions(status)["Answering"] == ("False", Code.PROVIDER_FAILING)
    provider = provider.model_copy(update={"status": status})
    # A restart forgets, and writes nothing.
    assert build_provider_status(provider, None, NOW + 5) == status


def test_the_status_tells_that_a_limit_was_reached_and_not_every_moment_of_it():
    provider = make_provider("acme", limits={"requestsPerMinute": 60}).object
    limits = provider_limits(provider)
    assert limits == Limits(requests=60)
    reached = ReachedLimit("acme", "requests", 60, int(NOW) + 6)
    memory = LimitMemory(limits, open_account(limits, 0), ProviderUse(), reached, NOW)
    status = build_provider_status(provider, None, NOW, limit=memory)
    assert conditions(status)["LimitReached"] == ("True", Code.LIMIT_REACHED)
    provider = provider.model_copy(update={"status": status})
    open_again = replace(memory, reached=None)
    assert build_provider_status(provider, None, NOW + 200, limit=open_again) == status
    assert build_provider_status(provider, None, NOW + 200) == status
    later = build_provider_status(provider, None, NOW + 301, limit=open_again)
    assert conditions(later)["LimitReached"] == ("False", Code.LIMIT_NOT_REACHED)
