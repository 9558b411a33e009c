"""What the status of a route says of its targets, and how rarely it is written."""

from modelyard.core.reasons import Code
from modelyard.core.routestatus import PRICES_KNOWN, SPILLING, tell_plan
from tests.unit.core.build import KEY
from tests.unit.core.test_routeplan import API, NAME, ROUTE, make_stage


def tell(stage, *, settled=True):
    """Write the status, as the operator does, and return it."""
    route = stage.snapshot.routes[ROUTE]
    fresh = route.status.model_copy(update={"conditions": ()})
    status = tell_plan(fresh, route, stage.plan.routes.get(ROUTE), stage.now, settled=settled)
    changed = status != route.status
    routes = {ROUTE: route.model_copy(update={"status": status})}
    stage.snapshot = type(stage.snapshot)(
        **{name: getattr(stage.snapshot, name) for name in stage.snapshot.__slots__ if name != "routes"},
        routes=routes,
    )
    return status, changed


def test_target_costs_and_break_even_are_told():
    stage = make_stage(start=10.0)
    stage.run(300, {NAME: 3.0})
    status, _ = tell(stage)
    choice = status.choice
    assert (choice.target, choice.reason) == (KEY, Code.FLEET_CHEAPER)
    costs = {item.target: item for item in choice.costs}
    # 3 requests/s of 0.000221 $ are 2.3868 $/h, of 1366 tokens 0.1618 $ a million.
    assert float(costs[API].per_hour) == 2.3868
    assert float(costs[API].per_million_tokens) == 0.1618
    assert (costs[KEY].per_hour, costs[KEY].replicas) == ("0.8", 1)
    assert float(costs[KEY].per_million_tokens) == 0.0542
    # 0.8 $/h over 0.000221 $ a request, a minute.
    assert float(choice.break_even_per_minute) == 60.3
    assert (choice.crossings[0].before, choice.crossings[0].after) == (API, KEY)
    assert choice.numbers["inputTokens"] == "1155"
    assert status.spill_percent == 0
    kinds = {item.type: (item.status, item.reason) for item in status.conditions}
    assert kinds == {SPILLING: ("False", Code.ROOM), PRICES_KNOWN: ("True", Code.PRICES_KNOWN)}


def test_every_crossing_is_told():
    # Two replicas cost more than a provider for what one just cannot answer, and less for more.
    stage = make_stage(start=10.0, price={"inputPerMillion": "0.04", "outputPerMillion": "0.04"})
    stage.run(300, {NAME: 3.0})
    status, _ = tell(stage)
    assert len(status.choice.crossings) >= 2
    rates = [float(item.requests_per_minute) for item in status.choice.crossings]
    assert rates == sorted(rates)


def test_a_provider_without_a_price_has_a_condition():
    stage = make_stage(price=None)
    stage.run(60, {NAME: 3.0})
    status, _ = tell(stage)
    condition = next(item for item in status.conditions if item.type == PRICES_KNOWN)
    assert (condition.status, condition.reason) == ("False", Code.PRICE_UNKNOWN)
    assert "models[].price" in condition.message
    assert {item.target: item.reason for item in status.choice.costs}[API] == Code.PRICE_UNKNOWN


def test_a_load_that_stays_about_the_same_writes_nothing():
    stage = make_stage(start=10.0)
    stage.run(400, {NAME: 3.0})
    tell(stage)
    writes = 0
    for number in range(60):
        stage.run(2, {NAME: 3.0 + 0.02 * (number % 3)})
        writes += tell(stage)[1]
    assert writes == 0


def test_a_load_that_goes_away_is_told_in_a_few_writes():
    stage = make_stage(start=10.0)
    stage.run(400, {NAME: 0.9})
    tell(stage)
    writes = 0
    for _ in range(300):
        stage.run(2, {NAME: 0.0})
        writes += tell(stage)[1]
    assert 1 <= writes <= 12
    assert not tell(stage)[1]


def test_figures_wait_until_they_have_settled_and_a_new_target_does_not():
    stage = make_stage(start=10.0)
    stage.run(300, {NAME: 0.5})
    tell(stage)
    stage.run(20, {NAME: 0.9})
    assert not tell(stage, settled=False)[1]
    status, changed = tell(stage)
    assert changed
    assert status.choice.target == API
    since = status.choice.since
    stage.run_until(lambda: stage.decided(ROUTE).choice.target.name == KEY, {NAME: 4.0})
    status, changed = tell(stage, settled=False)
    assert changed
    assert status.choice.target == KEY
    assert status.choice.since > since
    assert status.spill_percent == 100


def test_a_restart_writes_nothing():
    stage = make_stage(start=10.0)
    stage.run(300, {NAME: 3.0})
    before, _ = tell(stage)
    stage.routes_memory = type(stage.routes_memory)()
    writes = 0
    for _ in range(40):
        stage.run(2, {NAME: 3.0})
        writes += tell(stage)[1]
    assert writes == 0
    assert stage.snapshot.routes[ROUTE].status == before


def test_without_a_plan_what_stood_stays():
    stage = make_stage(start=10.0)
    stage.run(300, {NAME: 3.0})
    before, _ = tell(stage)
    stage.plan = type(stage.plan)()
    after, changed = tell(stage)
    assert not changed
    assert after == before
