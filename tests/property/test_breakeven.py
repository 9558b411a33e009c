"""What holds for every choice between own deployments and providers, whatever loads, prices and histories."""

from dataclasses import replace
from itertools import pairwise

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from modelyard.core.breakeven.decide import decide_targets
from modelyard.core.breakeven.inputs import (
    BreakEvenInput,
    BreakEvenPolicy,
    DeploymentInput,
    OwnTarget,
    ProviderTarget,
    RouteInput,
    RouteLoad,
    Target,
    TokenPrice,
)
from modelyard.core.breakeven.memory import BreakEvenChoice, BreakEvenMemory
from modelyard.core.load import LoadShape

NOW = 1_800_000_000.0
POLICY = BreakEvenPolicy()
TICK = 10.0
"""Seconds between two decisions."""
NAMES = ("team/a", "team/b")

# How long an example takes depends on the machine's other work, and says nothing about the decision.
unhurried = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
prices = st.builds(TokenPrice, st.floats(0.01, 5.0), st.floats(0.01, 20.0), st.none() | st.floats(0.005, 1.0))
qualities = st.none() | st.floats(0.0, 1.0)
loads = st.none() | st.builds(
    lambda now, growth, noise: RouteLoad(now, now * growth, now * noise),
    st.floats(0.0, 60.0),
    st.floats(0.5, 2.0),
    st.floats(0.0, 0.5),
)
mixes = st.builds(LoadShape, st.floats(1.0, 8000.0), st.floats(1.0, 2000.0), st.floats(0.0, 1.0))


@st.composite
def deployments(draw: st.DrawFn, name: str) -> DeploymentInput:
    present = draw(st.integers(0, 6))
    return DeploymentInput(
        name=name,
        price=draw(st.none() | st.floats(0.1, 20.0)),
        stand_in=draw(st.floats(0.1, 20.0)),
        maximum=draw(st.integers(0, 6)),
        minimum=draw(st.sampled_from([0, 0, 0, 1])),
        billing=draw(st.sampled_from(["PerHour", "PerHour", "Committed"])),
        contested=draw(st.booleans()),
        present=present,
        serving=draw(st.integers(0, present)),
        used=draw(st.sampled_from([0.0, 0.0, 0.4, 2.5])),
        start_time=draw(st.sampled_from([37.0, 120.0, 300.0])),
    )


@st.composite
def routes(draw: st.DrawFn, name: str) -> RouteInput:
    own = draw(st.sets(st.sampled_from(NAMES)))
    offered = draw(st.sets(st.sampled_from(["x/one", "x/two", "y/three"])))
    return RouteInput(
        name=name,
        mix=draw(mixes),
        load=draw(loads),
        own=tuple(
            OwnTarget(item, draw(st.sampled_from([0.0, 1.5, 20.0])), draw(qualities)) for item in sorted(own)
        ),
        providers=tuple(
            ProviderTarget(item, draw(st.none() | prices), draw(qualities)) for item in sorted(offered)
        ),
        minimum_quality=draw(st.none() | st.floats(0.0, 1.0)),
        sovereign=draw(st.booleans()),
        spill=draw(st.booleans()),
    )


@st.composite
def inputs(draw: st.DrawFn) -> BreakEvenInput:
    count = draw(st.integers(1, 3))
    return BreakEvenInput(
        tuple(draw(routes(f"team/route-{number}")) for number in range(count)),
        tuple(draw(deployments(name)) for name in NAMES),
    )


@st.composite
def single(draw: st.DrawFn) -> BreakEvenInput:
    """One route with both sides to choose from, and a fleet that is paid by the hour."""
    rate = draw(st.floats(0.01, 60.0))
    fleet = DeploymentInput(
        name="team/a",
        price=draw(st.floats(0.1, 20.0)),
        maximum=8,
        start_time=draw(st.sampled_from([37.0, 120.0])),
    )
    route = RouteInput(
        name="team/route",
        mix=draw(mixes),
        load=RouteLoad(rate, rate, rate * draw(st.floats(0.0, 0.4))),
        own=(OwnTarget("team/a", draw(st.floats(0.5, 30.0))),),
        providers=(ProviderTarget("x/one", draw(prices)),),
    )
    return BreakEvenInput((route,), (fleet,))


def at_rate(data: BreakEvenInput, rate: float) -> BreakEvenInput:
    """The same with another load, whose variance is in proportion."""
    route = data.routes[0]
    assert route.load is not None
    load = RouteLoad(rate, rate, route.load.variance(rate) ** 0.5)
    return replace(data, routes=(replace(route, load=load),))


def at_price(data: BreakEvenInput, factor: float) -> BreakEvenInput:
    route = data.routes[0]
    price = route.providers[0].price
    assert price is not None
    cached = None if price.cached is None else price.cached * factor
    cheaper = TokenPrice(price.input * factor, price.output * factor, cached)
    return replace(data, routes=(replace(route, providers=(replace(route.providers[0], price=cheaper),)),))


def fresh(data: BreakEvenInput) -> Target | None:
    return decide_targets(data, BreakEvenMemory(), NOW)[0].routes["team/route"].target


def targets_of(choice: BreakEvenChoice) -> dict[str, Target | None]:
    return {name: route.target for name, route in choice.routes.items()}


def check_allowed(data: BreakEvenInput, choice: BreakEvenChoice) -> None:
    fleets = {item.name: item for item in data.deployments}
    for route in data.routes:
        chosen = choice.routes[route.name]
        used = {share.target for share in chosen.shares} | ({chosen.target} if chosen.target else set())
        least = route.minimum_quality
        for target in used:
            found: OwnTarget | ProviderTarget
            if target.own:
                found = next(item for item in route.own if item.deployment == target.name)
                assert fleets[target.name].maximum > 0
                assert found.capacity > 0
            else:
                assert not route.sovereign
                found = next(item for item in route.providers if item.name == target.name)
                assert found.price is not None
            assert least is None or (found.quality is not None and found.quality >= least)
        assert not chosen.shares or abs(sum(share.part for share in chosen.shares) - 1.0) < 1e-9
        assert (chosen.target is None) == (not chosen.shares)


@unhurried
@given(st.lists(inputs(), min_size=1, max_size=4))
def test_no_request_ever_goes_where_it_may_not(history):
    memory = BreakEvenMemory()
    for number, data in enumerate(history):
        choice, memory = decide_targets(data, memory, NOW + 3600.0 * number)
        check_allowed(data, choice)


@unhurried
@given(st.lists(inputs(), min_size=1, max_size=3))
def test_a_deployment_that_somebody_sends_to_is_never_told_to_sleep(history):
    memory = BreakEvenMemory()
    for number, data in enumerate(history):
        choice, memory = decide_targets(data, memory, NOW + 3600.0 * number)
        for item in data.deployments:
            asked = choice.deployments[item.name]
            sent = any(target == Target("Deployment", item.name) for target in targets_of(choice).values())
            needed = item.maximum > 0 and (item.minimum > 0 or item.used > 0)
            assert not (asked.may_sleep and (sent or needed))
            assert asked.replicas <= item.maximum
            assert asked.replicas >= min(item.minimum, item.maximum)


@unhurried
@given(inputs(), inputs())
def test_the_same_inputs_give_the_same_answer_whatever_the_order(before, data):
    _, memory = decide_targets(before, BreakEvenMemory(), NOW)
    first = decide_targets(data, memory, NOW + 60.0)
    assert decide_targets(data, memory, NOW + 60.0) == first
    turned = replace(data, deployments=tuple(reversed(data.deployments)))
    choice, _ = decide_targets(turned, memory, NOW + 60.0)
    assert targets_of(choice) == targets_of(first[0])


@unhurried
@given(inputs(), inputs())
def test_deciding_again_on_the_outcome_changes_nothing(before, data):
    _, memory = decide_targets(before, BreakEvenMemory(), NOW)
    choice, memory = decide_targets(data, memory, NOW + 60.0)
    again, same = decide_targets(data, memory, NOW + 60.0)
    assert targets_of(again) == targets_of(choice)
    assert same == memory


@unhurried
@given(single(), st.floats(0.01, 60.0))
def test_a_constant_load_changes_the_target_at_most_once(data, rate):
    _, memory = decide_targets(at_rate(data, rate), BreakEvenMemory(), NOW)
    seen = []
    for number in range(1, 61):
        choice, memory = decide_targets(data, memory, NOW + 60.0 * number)
        seen.append(choice.routes["team/route"].target)
    assert sum(one != two for one, two in pairwise(seen)) <= 1


@unhurried
@given(single(), st.floats(1.0, 4.0))
def test_more_load_never_moves_a_route_to_the_provider_as_long_as_the_replicas_do(data, factor):
    assert data.routes[0].load is not None
    rate = data.routes[0].load.ahead
    more = at_rate(data, rate * factor)
    counts = [
        decide_targets(item, BreakEvenMemory(), NOW)[0].routes["team/route"].costs[0].replicas
        for item in (data, more)
    ]
    assume(counts[0] == counts[1])
    assert not (fresh(data) == Target("Deployment", "team/a") and fresh(more) == Target("Provider", "x/one"))


@unhurried
@given(single(), st.floats(0.01, 60.0), st.floats(0.0, 1.0), st.integers(0, 30))
def test_a_cheaper_provider_never_moves_a_route_to_the_fleet(data, rate, factor, ticks):
    for start in (None, rate):
        memory, now = BreakEvenMemory(), NOW
        if start is not None:
            _, memory = decide_targets(at_rate(data, start), memory, now)
            for _ in range(ticks):
                now += TICK
                _, memory = decide_targets(data, memory, now)
        dear, _ = decide_targets(data, memory, now + TICK)
        cheap, _ = decide_targets(at_price(data, factor), memory, now + TICK)
        if dear.routes["team/route"].target == Target("Provider", "x/one"):
            assert cheap.routes["team/route"].target == Target("Provider", "x/one")


@unhurried
@given(single(), st.floats(0.01, 60.0))
def test_what_is_paid_too_much_before_a_change_is_the_band_and_one_start(data, rate):
    fleet, now = data.deployments[0], NOW
    _, memory = decide_targets(at_rate(data, rate), BreakEvenMemory(), now)
    wasted = start = 0.0
    for _ in range(150):
        now += TICK
        choice, memory = decide_targets(data, memory, now)
        route = choice.routes["team/route"]
        costs = {cost.target: cost.hourly for cost in route.costs}
        assert route.target is not None
        chosen, cheapest = costs[route.target], min(costs.values())
        start = route.costs[0].replicas * fleet.avoidable * fleet.start_time / 3600
        rate_wasted = chosen * (1 - POLICY.band) - cheapest
        wasted = max(0.0, wasted + rate_wasted * TICK / 3600) if rate_wasted > 0 else 0.0
        # One start at most, or what the first start time costs, in which nothing may change; and the last tick.
        blocked = max(rate_wasted, 0.0) * (fleet.start_time + 2 * TICK) / 3600
        assert wasted <= start + blocked + 1e-9


@settings(unhurried, max_examples=12)
@given(single(), st.floats(0.01, 60.0), st.floats(-0.02, 0.02))
def test_a_trend_that_does_not_come_true_costs_two_starts_at_most(data, rate, trend):
    """Whatever is foretold, a present target is left that has really cost too much."""
    fleet, now, route = data.deployments[0], NOW, data.routes[0]
    assert route.load is not None
    told = replace(data, routes=(replace(route, load=replace(route.load, trend=trend)),))
    _, memory = decide_targets(at_rate(data, rate), BreakEvenMemory(), now)
    wasted = 0.0
    for _ in range(150):
        now += TICK
        choice, memory = decide_targets(told, memory, now)
        found = choice.routes["team/route"]
        costs = {cost.target: cost.hourly for cost in found.costs}
        assert found.target is not None
        chosen, cheapest = costs[found.target], min(costs.values())
        start = found.costs[0].replicas * fleet.avoidable * fleet.start_time / 3600
        rate_wasted = max(chosen * (1 - POLICY.band) - cheapest, 0.0)
        wasted = wasted + rate_wasted * TICK / 3600 if rate_wasted else 0.0
        blocked = rate_wasted * (fleet.start_time + 2 * TICK) / 3600
        assert wasted <= POLICY.returns * start + blocked + 1e-9


@unhurried
@given(
    single(),
    st.lists(st.tuples(st.integers(1, 40), st.none() | st.floats(0.0, 60.0)), min_size=1, max_size=8),
)
def test_nothing_is_changed_back_within_one_start_time(data, stretches):
    memory, now, changes, last = BreakEvenMemory(), NOW, [], None
    for ticks, rate in stretches:
        for _ in range(ticks):
            now += TICK
            blind = replace(data, routes=(replace(data.routes[0], load=None),))
            choice, memory = decide_targets(blind if rate is None else at_rate(data, rate), memory, now)
            target = choice.routes["team/route"].target
            if target != last:
                assert rate is not None or last is None
                changes.append(now)
            last = target
    assert all(two - one >= data.deployments[0].start_time for one, two in pairwise(changes))


@unhurried
@given(single(), st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12))
def test_between_two_crossings_the_cheapest_target_stays(data, places):
    choice, _ = decide_targets(data, BreakEvenMemory(), NOW)
    crossings = choice.routes["team/route"].crossings
    loads = [crossing.requests_per_minute / 60 for crossing in crossings]
    assert loads == sorted(loads)
    # As far as eight replicas answer; beyond it there are no crossings.
    most = 0.5 * 8 * data.routes[0].own[0].capacity
    for place in places:
        rate = most * place
        if rate < 1e-3 or any(abs(rate - load) < 1e-4 * load for load in loads):
            continue
        below = [crossing for crossing in crossings if crossing.requests_per_minute / 60 < rate]
        after = next((crossing for crossing in crossings if crossing.requests_per_minute / 60 > rate), None)
        expected = below[-1].after if below else after.before if after else None
        found = fresh(at_rate(data, rate))
        if expected is not None:
            assert found == expected
        else:
            assert found == fresh(at_rate(data, most / 2))
