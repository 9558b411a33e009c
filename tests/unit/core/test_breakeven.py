"""Where a route's requests go: own deployments against providers, in dollars."""

import math
from dataclasses import replace

import pytest

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
from modelyard.core.breakeven.memory import BreakEvenMemory
from modelyard.core.breakeven.need import Work, answered, replicas_needed, suffices
from modelyard.core.load import LoadShape
from modelyard.core.reasons import Code
from modelyard.core.scaling.attainment import MissPolicy, capacity_for
from modelyard.core.scaling.headroom import HeadroomPolicy

NOW = 1_800_000_000.0
MIX = LoadShape(1000.0, 200.0, 0.5)
PRICE = TokenPrice(0.2, 0.4, 0.1)
"""0.00023 $ for the mean request: 500 x 0.2 + 500 x 0.1 + 200 x 0.4, in millionths."""
FLEET, API = Target("Deployment", "team/llama"), Target("Provider", "together/llama")
EACH = 20.0
"""Requests per second of one replica."""


def make_route(rate: float | None = 1.0, name: str = "team/chat", **changes) -> RouteInput:
    values = {
        "mix": MIX,
        "load": None if rate is None else RouteLoad(rate, rate, 0.02 * rate),
        "own": (OwnTarget(FLEET.name, EACH, quality=0.7),),
        "providers": (ProviderTarget(API.name, PRICE, quality=0.8),),
    }
    return RouteInput(name=name, **(values | changes))


def make_fleet(**changes) -> DeploymentInput:
    values = {"name": FLEET.name, "price": 3.6, "maximum": 8, "start_time": 100.0}
    return DeploymentInput(**(values | changes))


def choose(*routes: RouteInput, fleet: DeploymentInput | None = None, memory=None, now=NOW, others=()):
    data = BreakEvenInput(routes, (fleet or make_fleet(), *others))
    return decide_targets(data, memory or BreakEvenMemory(), now)


def hold(seconds: float, memory, now, *routes: RouteInput, fleet=None, tick: float = 2.0):
    """Decide again and again, and return the choices with their times, the last memory and time."""
    seen = []
    for _ in range(round(seconds / tick)):
        now += tick
        choice, memory = choose(*routes, fleet=fleet, memory=memory, now=now)
        seen.append((now, choice))
    return seen, memory, now


def test_what_a_request_costs_counts_cached_input_apart():
    assert PRICE.per_request(MIX) == pytest.approx(0.00023)
    assert TokenPrice(0.2, 0.4).per_request(MIX) == pytest.approx(0.00028)


@pytest.mark.parametrize(("rate", "target"), [(4.3, API), (4.4, FLEET)])
def test_the_cheaper_side_of_the_break_even_is_chosen(rate, target):
    # 3.6 $/h over 0.00023 $ a request are 4.348 requests/s.
    choice, _ = choose(make_route(rate))
    assert choice.routes["team/chat"].target == target


def test_the_crossing_is_where_both_cost_the_same_and_is_told():
    found, _ = choose(make_route(4.0))
    route = found.routes["team/chat"]
    (crossing,) = route.crossings
    assert (crossing.before, crossing.after) == (API, FLEET)
    assert crossing.requests_per_minute == pytest.approx(3.6 / 0.00023 / 60)
    assert route.reason.code == Code.PROVIDER_CHEAPER
    assert "3.6 $/h more on team/llama (1 replica)" in route.reason.message
    assert "3.312 $/h at together/llama" in route.reason.message
    assert "240 requests/min of 1000 + 200 tokens, 50% of the prompt cached" in route.reason.message
    assert "team/llama from 260.9 requests/min" in route.reason.message


def test_every_crossing_is_told_where_each_further_replica_has_its_own():
    # Near the price of a full replica, the API is cheaper again each time that one more is needed.
    dear = replace(PRICE, input=PRICE.input / 3.6, cached=0.1 / 3.6, output=0.4 / 3.6)
    route = make_route(10.0, providers=(ProviderTarget(API.name, dear),))
    found, _ = choose(route, fleet=make_fleet(maximum=4))
    crossings = found.routes["team/chat"].crossings
    assert [crossing.after for crossing in crossings] == [FLEET, API, FLEET, API, FLEET, API, FLEET][
        : len(crossings)
    ]
    assert len(crossings) >= 3
    loads = [crossing.requests_per_minute for crossing in crossings]
    assert loads == sorted(loads)
    for crossing in crossings:
        for factor, target in ((1 - 1e-6, crossing.before), (1 + 1e-6, crossing.after)):
            rate = crossing.requests_per_minute / 60 * factor
            # The same noise in proportion, as the crossings are worked out with.
            load = RouteLoad(rate, rate, 0.2 * (rate / 10) ** 0.5)
            at, _ = choose(replace(route, load=load), fleet=make_fleet(maximum=4))
            assert at.routes["team/chat"].target == target


def test_below_the_break_even_the_deployment_may_sleep_and_above_it_is_asked_for():
    below, _ = choose(make_route(1.0))
    assert below.deployments[FLEET.name].may_sleep
    assert below.deployments[FLEET.name].replicas == 0
    above, _ = choose(make_route(30.0))
    assert not above.deployments[FLEET.name].may_sleep
    assert above.deployments[FLEET.name].replicas == 2


def test_two_routes_that_share_a_deployment_are_decided_together():
    one, two = make_route(3.0, "team/one"), make_route(3.0, "team/two")
    alone, _ = choose(one)
    assert alone.routes["team/one"].target == API
    both, _ = choose(one, two)
    assert {route.target for route in both.routes.values()} == {FLEET}
    assert both.deployments[FLEET.name].replicas == 1


def test_a_deployment_sleeps_only_if_all_its_routes_permit():
    kept = make_route(0.1, "team/kept", sovereign=True)
    choice, _ = choose(make_route(0.1), kept)
    assert choice.routes["team/kept"].target == FLEET
    assert not choice.deployments[FLEET.name].may_sleep
    # The replica is there for the other route, so that its headroom costs nothing.
    assert choice.routes["team/chat"].target == FLEET


@pytest.mark.parametrize("fleet", [make_fleet(minimum=1), make_fleet(used=0.4)], ids=["minimum", "others"])
def test_free_headroom_of_what_runs_anyway_costs_nothing(fleet):
    choice, _ = choose(make_route(1.0), fleet=fleet)
    route = choice.routes["team/chat"]
    assert route.target == FLEET
    assert next(cost.hourly for cost in route.costs if cost.target == FLEET) == 0.0
    assert not choice.deployments[FLEET.name].may_sleep


def test_what_no_longer_fits_the_free_headroom_pays_for_its_own_replica():
    choice, _ = choose(make_route(3.0), fleet=make_fleet(used=0.8, minimum=1))
    assert choice.routes["team/chat"].target == API
    assert choice.deployments[FLEET.name].replicas == 1


def test_committed_accelerators_cost_only_what_another_model_would_use():
    committed = make_fleet(billing="Committed")
    free, _ = choose(make_route(0.5), fleet=committed)
    assert free.routes["team/chat"].target == FLEET
    assert (
        "0 $/h more on team/llama (1 replica, committed and wanted by nobody else)"
        in free.routes["team/chat"].reason.message
    )
    wanted, _ = choose(make_route(0.5), fleet=replace(committed, contested=True))
    assert wanted.routes["team/chat"].target == API


def test_an_unknown_gpu_price_is_the_stand_in():
    unknown = make_fleet(price=None, stand_in=3.6)
    assert choose(make_route(4.3), fleet=unknown)[0].routes["team/chat"].target == API
    assert choose(make_route(4.4), fleet=unknown)[0].routes["team/chat"].target == FLEET


def test_an_unknown_api_price_is_never_chosen():
    unpriced = ProviderTarget("other/free", None, quality=1.0)
    choice, _ = choose(make_route(0.1, providers=(unpriced, ProviderTarget(API.name, PRICE))))
    route = choice.routes["team/chat"]
    assert route.target == API
    refused = next(cost for cost in route.costs if cost.target.name == "other/free")
    assert refused.hourly is None
    assert refused.refusal is not None
    assert refused.refusal.code == Code.PRICE_UNKNOWN
    alone, _ = choose(make_route(0.1, own=(), providers=(unpriced,)))
    assert alone.routes["team/chat"].target is None
    assert alone.routes["team/chat"].reason.code == Code.NO_TARGET
    assert "models[].price" in alone.routes["team/chat"].reason.message


def test_quality_below_the_minimum_or_not_stated_is_never_chosen():
    cheap = ProviderTarget("other/small", TokenPrice(0.001, 0.001), quality=0.3)
    silent = ProviderTarget("other/silent", TokenPrice(0.001, 0.001))
    route = make_route(
        0.1, providers=(cheap, silent, ProviderTarget(API.name, PRICE, 0.8)), minimum_quality=0.75
    )
    choice, _ = choose(route)
    assert choice.routes["team/chat"].target == API
    codes = {cost.target.name: cost.refusal.code for cost in choice.routes["team/chat"].costs if cost.refusal}
    assert codes == dict.fromkeys(("team/llama", "other/small", "other/silent"), Code.QUALITY_TOO_LOW)


def test_a_sovereign_route_waits_for_its_deployment_and_never_spills():
    choice, _ = choose(make_route(0.1, sovereign=True))
    route = choice.routes["team/chat"]
    assert [(share.target, share.part) for share in route.shares] == [(FLEET, 1.0)]
    assert route.reason.code == Code.ONLY_TARGET
    # How long it runs without requests is left to the size rule: this choice keeps nothing awake.
    assert choice.deployments[FLEET.name].replicas == 0
    assert not choice.deployments[FLEET.name].may_sleep


@pytest.mark.parametrize(
    ("serving", "part"), [(0, 0.0), (1, 0.4), (2, 0.8), (3, 1.0)], ids=["none", "one", "two", "all"]
)
def test_requests_spill_while_replicas_are_missing(serving, part):
    choice, _ = choose(make_route(40.0), fleet=make_fleet(serving=serving, present=3))
    shares = {share.target: share.part for share in choice.routes["team/chat"].shares}
    assert shares.get(FLEET, 0.0) == pytest.approx(part)
    assert shares.get(API, 0.0) == pytest.approx(1.0 - part)
    code = Code.FLEET_CHEAPER if part == 1.0 else Code.STARTING
    assert choice.routes["team/chat"].reason.code == code


def test_without_spill_requests_wait():
    choice, _ = choose(make_route(40.0, spill=False))
    assert choice.routes["team/chat"].reason.code == Code.STARTING
    assert choice.deployments[FLEET.name].replicas == 3
    assert [(share.target, share.part) for share in choice.routes["team/chat"].shares] == [(FLEET, 1.0)]


def test_lost_counters_hold_the_choice_and_the_replicas():
    fleet = make_fleet(serving=2, present=2)
    before, memory = choose(make_route(30.0), fleet=fleet)
    seen, memory, now = hold(4 * 3600.0, memory, NOW, make_route(None), fleet=fleet, tick=60.0)
    for _, choice in seen:
        route = choice.routes["team/chat"]
        assert route.target == FLEET
        assert route.shares == before.routes["team/chat"].shares
        assert route.reason.code == Code.NO_DATA
        assert choice.deployments[FLEET.name].replicas == 2
        assert not choice.deployments[FLEET.name].may_sleep
    # The first reading after it is no reason to hurry: what came in between is not known.
    after, _ = choose(make_route(0.1), fleet=fleet, memory=memory, now=now + 2.0)
    assert after.routes["team/chat"].target == FLEET


@pytest.mark.parametrize("change", [{"sovereign": True}, {"spill": False}], ids=["sovereign", "spill"])
def test_without_data_too_nothing_spills_that_no_longer_may(change):
    fleet = make_fleet(serving=1, present=3)
    before, memory = choose(make_route(40.0), fleet=fleet)
    assert len(before.routes["team/chat"].shares) == 2
    after, _ = choose(make_route(None, **change), fleet=fleet, memory=memory, now=NOW + 2.0)
    assert [(share.target, share.part) for share in after.routes["team/chat"].shares] == [(FLEET, 1.0)]


@pytest.mark.parametrize(("serving", "target"), [(1, FLEET), (0, API)])
def test_without_data_and_memory_what_serves_stays_in_use(serving, target):
    choice, _ = choose(make_route(None), fleet=make_fleet(serving=serving, present=serving))
    assert choice.routes["team/chat"].target == target
    assert choice.deployments[FLEET.name].replicas == serving


def test_more_than_the_maximum_spills_and_is_paid_for():
    choice, _ = choose(make_route(60.0), fleet=make_fleet(maximum=1, serving=1, present=1))
    route = choice.routes["team/chat"]
    assert route.target == FLEET
    assert route.shares[1].target == API
    assert choice.deployments[FLEET.name].replicas == 1
    waits, _ = choose(make_route(60.0, spill=False), fleet=make_fleet(maximum=1, serving=1, present=1))
    # It may not spill, so the provider, which answers all, is chosen.
    assert waits.routes["team/chat"].target == API


def test_routes_that_share_nothing_are_decided_apart():
    other = DeploymentInput(name="team/other", price=3.6, maximum=8)
    near = make_route(3.0)
    far = make_route(3.0, "team/far", own=(OwnTarget("team/other", EACH),))
    choice, _ = choose(near, far, others=(other,))
    assert {route.target for route in choice.routes.values()} == {API}


def test_many_routes_on_one_deployment_are_decided_by_search():
    routes = tuple(make_route(0.6, f"team/route-{number}") for number in range(12))
    choice, _ = choose(*routes)
    assert {route.target for route in choice.routes.values()} == {FLEET}
    assert choice.deployments[FLEET.name].replicas == 1


def test_a_route_that_is_gone_is_forgotten():
    _, memory = choose(make_route(1.0), make_route(1.0, "team/gone"))
    _, memory = choose(make_route(1.0), memory=memory, now=NOW + 2.0)
    assert set(memory.routes) == {"team/chat"}


@pytest.mark.parametrize(
    ("routes", "fleet", "message"),
    [
        ((make_route(-1.0),), make_fleet(), "load.now of team/chat is -1"),
        ((make_route(1.0),), make_fleet(price=float("nan")), "price of team/llama is nan"),
        ((make_route(1.0), make_route(2.0)), make_fleet(), "routes has team/chat twice"),
        (
            (make_route(1.0, own=(OwnTarget("team/none", 1.0),)),),
            make_fleet(),
            "team/none, which is not among",
        ),
        ((make_route(1.0, mix=LoadShape(1.0, 1.0, 2.0)),), make_fleet(), "give a share from 0 to 1"),
    ],
)
def test_bad_input_is_refused_by_name(routes, fleet, message):
    with pytest.raises(ValueError, match=message):
        choose(*routes, fleet=fleet)


@pytest.mark.parametrize("mean", [0.3, 0.95, 3.7, 40.0])
def test_whole_replicas_are_those_that_the_size_rule_plans(mean):
    work, policy = Work(mean, 0.04 * mean), BreakEvenPolicy()
    planned = capacity_for(mean, (0.04 * mean) ** 0.5, HeadroomPolicy().missed, MissPolicy())
    assert replicas_needed(work, policy) == math.ceil(planned)


def test_replicas_and_the_load_that_they_answer_agree():
    policy = BreakEvenPolicy()
    load, own = RouteLoad(10.0, 10.0, 2.0), OwnTarget("team/llama", 4.0)
    for replicas in (1, 2, 5):
        rate = answered(load, own, Work(0.3, 0.01), replicas, policy)
        for factor, needed in ((1 - 1e-6, replicas), (1 + 1e-6, replicas + 1)):
            more = rate * factor
            work = Work(0.3 + more / 4.0, 0.01 + load.variance(more) / 16.0)
            assert replicas_needed(work, policy) == needed
            assert suffices(work, needed, policy)
