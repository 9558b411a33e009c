"""Which outcomes no other beats."""

import math

from hypothesis import given
from hypothesis import strategies as st

from modelyard.simulator.frontier import Point, attainment_at, cost_at, frontier

A, B, C, D = Point(1.0, 0.5, "a"), Point(2.0, 0.9, "b"), Point(3.0, 0.8, "c"), Point(4.0, 0.99, "d")


def test_what_costs_more_and_attains_less_is_left_out():
    assert frontier([D, C, B, A]) == (A, B, D)


def test_of_equals_one_is_left_and_of_equal_cost_the_better():
    assert frontier([A, Point(1.0, 0.5, "b")]) == (A,)
    assert frontier([A, Point(1.0, 0.6)]) == (Point(1.0, 0.6),)
    assert frontier([A, Point(1.5, 0.5)]) == (A,)


def test_without_points_there_is_none():
    assert frontier([]) == ()


points = st.lists(st.builds(Point, st.floats(0, 9).map(round), st.integers(0, 9).map(lambda one: one / 9)))


@given(points)
def test_no_point_of_the_frontier_is_beaten_and_every_other_one_is(given_points):
    best = frontier(given_points)
    for point in given_points:
        beaten = any(
            one.cost <= point.cost and one.attainment >= point.attainment and one != point
            for one in given_points
        )
        assert (point in best) == (not beaten)
    assert [one.cost for one in best] == sorted({one.cost for one in best})


def test_cost_of_an_attainment_is_that_of_the_cheapest_setting_that_has_it():
    assert cost_at([A, B, C, D], 0.8) == 2.0
    assert cost_at([A, B, C, D], 0.9) == 2.0
    assert cost_at([A, B, C, D], 0.91) == 4.0
    assert cost_at([A, B, C, D], 0.995) == math.inf


def test_attainment_of_a_cost_is_the_highest_that_it_buys():
    assert attainment_at([A, B, C, D], 3.5) == 0.9
    assert math.isnan(attainment_at([A, B, C, D], 0.5))
