"""When requests go out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev.loadgen.schedule import COPY_SPREAD_S, peak_rate, plan_requests
from dev.traces import Arrival

ARRIVALS = [Arrival(float(second), 100 + second, 10 + second) for second in range(1000)]


def test_speed_divides_times_and_keeps_sizes() -> None:
    planned = plan_requests(ARRIVALS, speed=2.5)
    assert [request.at_s for request in planned] == [arrival.at_s / 2.5 for arrival in ARRIVALS]
    assert [request.prompt_tokens for request in planned] == [arrival.prompt_tokens for arrival in ARRIVALS]
    assert [request.output_tokens for request in planned] == [arrival.output_tokens for arrival in ARRIVALS]


@given(scale_rate=st.floats(0.05, 4.0), seed=st.integers(0, 1000))
def test_scale_rate_scales_the_count(scale_rate: float, seed: int) -> None:
    planned = plan_requests(ARRIVALS, scale_rate=scale_rate, seed=seed)
    # Each arrival adds floor or ceiling copies; 6 standard deviations of a fair coin bound the sum.
    assert abs(len(planned) - scale_rate * len(ARRIVALS)) <= 6 * (len(ARRIVALS) / 4) ** 0.5
    assert planned == sorted(planned)
    assert planned == plan_requests(ARRIVALS, scale_rate=scale_rate, seed=seed)


def test_copies_follow_their_original_shortly() -> None:
    planned = plan_requests([Arrival(5.0, 7, 8)], scale_rate=3)
    assert len(planned) == 3
    assert planned[0].at_s == 5.0
    assert all(5.0 <= request.at_s <= 5.0 + COPY_SPREAD_S for request in planned)


@pytest.mark.parametrize(("speed", "scale_rate"), [(0, 1), (-1, 1), (1, 0)])
def test_speed_and_rate_must_be_positive(speed: float, scale_rate: float) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        plan_requests(ARRIVALS, speed=speed, scale_rate=scale_rate)


def test_peak_rate_is_that_of_the_fullest_window() -> None:
    times = [0.0, 1.0, 10.0, 11.0, 12.0, 19.9, 20.0]
    assert peak_rate(plan_requests([Arrival(at_s, 1, 1) for at_s in times])) == pytest.approx(0.4)
    assert peak_rate([]) == 0
