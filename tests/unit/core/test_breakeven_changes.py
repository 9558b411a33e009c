"""When a route's present target is left for a cheaper one."""

from dataclasses import replace

import pytest

from modelyard.core.breakeven.inputs import ProviderTarget, Target, TokenPrice
from modelyard.core.breakeven.memory import BreakEvenMemory
from modelyard.core.reasons import Code
from tests.unit.core.test_breakeven import API, FLEET, NOW, PRICE, choose, hold, make_route


def test_a_load_that_has_crossed_is_followed_and_the_wait_is_told():
    _, memory = choose(make_route(1.0))
    seen, memory, now = hold(7200.0, memory, NOW, make_route(1.0), tick=60.0)
    seen, memory, _ = hold(40.0, memory, now, make_route(8.0))
    targets = [choice.routes["team/chat"].target for _, choice in seen]
    assert targets[0] == API
    assert seen[0][1].routes["team/chat"].reason.code == Code.STABILIZING
    assert "until it has cost" in seen[0][1].routes["team/chat"].reason.message
    change = targets.index(FLEET)
    assert set(targets[change:]) == {FLEET}
    # 8 requests/s cost 6.62 $/h, less 3.6 and the band: 2.89 $/h, until 2 % of a start, 0.002 $.
    assert seen[change][0] - now == pytest.approx(0.002 / 2.892 * 3600, abs=2.0)


def just_changed(memory: BreakEvenMemory) -> BreakEvenMemory:
    """The same as if the choice had been a change."""
    return BreakEvenMemory({name: replace(route, unrest=1.0) for name, route in memory.routes.items()})


def test_a_first_choice_is_left_after_one_start_time_as_it_threw_no_start_away():
    _, memory = choose(make_route(8.0))
    seen, _, _ = hold(110.0, memory, NOW, make_route(1.0))
    assert next(now for now, choice in seen if choice.routes["team/chat"].target == API) - NOW == 100.0


def test_right_after_a_change_the_whole_start_must_have_been_wasted():
    memory = just_changed(choose(make_route(8.0))[1])
    seen, _, _ = hold(600.0, memory, NOW, make_route(1.0))
    changed = next(now for now, choice in seen if choice.routes["team/chat"].target == API)
    # 3.6 $/h against 0.83: a start of 0.1 $ is wasted in 134 s; by then the threshold has fallen by 3 %.
    assert changed - NOW == pytest.approx(134.0, abs=6.0)


def test_nothing_is_changed_back_within_one_start_time():
    _, memory = choose(make_route(50.0))
    seen, _, _ = hold(98.0, memory, NOW, make_route(0.0))
    assert {choice.routes["team/chat"].target for _, choice in seen} == {FLEET}


def test_a_surge_right_after_a_change_waits_for_one_start_time():
    _, memory = choose(make_route(1.0))
    seen, _, _ = hold(110.0, memory, NOW, make_route(50.0))
    changed = next(now for now, choice in seen if choice.routes["team/chat"].target == FLEET)
    assert changed - NOW == 100.0


def test_what_is_not_counted_is_no_evidence():
    memory = just_changed(choose(make_route(8.0))[1])
    seen, memory, now = hold(120.0, memory, NOW, make_route(1.0))
    assert seen[-1][1].routes["team/chat"].target == FLEET
    # Twenty seconds more of the same load would change the target.
    seen, _, _ = hold(600.0, memory, now, make_route(None))
    assert {choice.routes["team/chat"].target for _, choice in seen} == {FLEET}


def test_a_target_that_may_not_be_used_any_more_is_left_at_once():
    _, memory = choose(make_route(1.0))
    choice, _ = choose(make_route(1.0, sovereign=True), memory=memory, now=NOW + 1.0)
    assert choice.routes["team/chat"].target == FLEET


def test_a_provider_stays_until_another_is_clearly_cheaper():
    def offer(factor: float) -> tuple[ProviderTarget, ...]:
        other = TokenPrice(PRICE.input * factor, PRICE.output * factor, 0.1 * factor)
        return ProviderTarget(API.name, PRICE), ProviderTarget("other/llama", other)

    _, memory = choose(make_route(1.0, providers=offer(1.1)))
    near, _ = choose(make_route(1.0, providers=offer(0.99)), memory=memory, now=NOW + 3600.0)
    assert near.routes["team/chat"].target == API
    far, _ = choose(make_route(1.0, providers=offer(0.9)), memory=memory, now=NOW + 3600.0)
    assert far.routes["team/chat"].target == Target("Provider", "other/llama")
