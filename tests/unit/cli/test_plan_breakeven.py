"""Break-even volumes: against a search by hand, and the choice of prices."""

from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.catalog.api_prices import load_api_prices
from modelyard.core.load import LoadShape
from modelyard.core.report.breakeven import Staircase, find_break_even, request_price
from modelyard.core.report.compare import REFERENCES


def staircase(price: int, capacity: int, minimum: int, maximum: int, chance: int = 0) -> Staircase:
    """Return replicas that answer `capacity` requests an hour each, all together `chance` fewer."""
    return Staircase(
        price=price,
        answered=lambda replicas: max(capacity * replicas - chance, 0),
        minimum=minimum,
        maximum=maximum,
    )


STAIRCASES = st.lists(
    st.builds(
        staircase,
        price=st.integers(1, 30),
        capacity=st.integers(1, 40),
        minimum=st.integers(1, 3),
        maximum=st.integers(3, 9),
        chance=st.integers(0, 50),
    ),
    min_size=1,
    max_size=3,
)


def cost(staircases: list[Staircase], rate: Fraction) -> Fraction | None:
    """Return what the cheapest variant that can answer the rate costs; None if none can."""
    costs = []
    for item in staircases:
        enough = (count for count in range(item.minimum, item.maximum + 1) if item.answered(count) >= rate)
        costs += [Fraction(item.price) * count for count in list(enough)[:1]]
    return min(costs, default=None)


def search(staircases: list[Staircase], per_request: int) -> list[tuple[Fraction, bool]]:
    """Return, for every rate at which something may change and between any two of them, whether we cost less."""
    points = {Fraction(0)}
    for item in staircases:
        for count in range(1, item.maximum + 1):
            points |= {Fraction(count * item.price, per_request), Fraction(int(item.answered(count)))}
    ordered = sorted(points)
    ordered += [(low + high) / 2 for low, high in pairwise(ordered)]
    most = max(item.most for item in staircases)
    result = []
    for rate in sorted(point for point in ordered if point <= most):
        ours = cost(staircases, rate)
        result.append((rate, ours is not None and ours <= rate * per_request))
    return result


@given(STAIRCASES, st.integers(1, 6))
def test_the_first_crossing_is_the_one_that_a_search_finds(staircases, per_request) -> None:
    found = find_break_even(staircases, per_request)
    rates = search(staircases, per_request)
    cheaper = [rate for rate, less in rates if less]
    if found is None:
        assert not cheaper
        return
    assert found.first == pytest.approx(float(cheaper[0]))
    assert cost([staircases[found.variant]], cheaper[0]) == cost(staircases, cheaper[0])
    starts = [
        now
        for (_, before), (now, after) in zip([(0, False), *rates], rates, strict=False)
        if after and not before
    ]
    assert (found.crossings, found.last) == (len(starts), pytest.approx(float(starts[-1])))
    assert (found.until is None) is rates[-1][1]


def test_by_hand() -> None:
    # One replica at 2 dollars an hour answers 10 requests an hour; the API asks 0.3 dollars for one. A replica pays
    # from 6.67 requests on, two from 13.33 on (one is full at 10), three from 20 on: that is where two are full.
    found = find_break_even([staircase(price=2, capacity=10, minimum=1, maximum=5)], 0.3)
    assert found is not None
    assert (found.first, found.crossings, found.until) == (pytest.approx(6.667, rel=1e-3), 2, None)
    assert found.last == pytest.approx(13.333, rel=1e-3)


def test_replicas_that_answer_more_each_the_more_there_are() -> None:
    # Three fewer than 10 each: one is full at 7, two at 17, three at 27. At 0.25 dollars a request one pays from 8 on,
    # which it cannot answer, two from 16 to 17, three from 24 to 27, four from 32 to 37, and five from 40 to 47.
    found = find_break_even([staircase(price=2, capacity=10, minimum=1, maximum=5, chance=3)], 0.25)
    assert found is not None
    assert (found.first, found.last, found.crossings, found.until) == (16, 40, 4, None)


def test_a_full_replica_that_costs_more_never_pays() -> None:
    assert find_break_even([staircase(price=4, capacity=10, minimum=1, maximum=5)], 0.3) is None


def test_what_costs_nothing_elsewhere_never_pays() -> None:
    assert find_break_even([staircase(price=1, capacity=10, minimum=1, maximum=5)], 0) is None


def test_more_replicas_than_needed_must_be_paid_for() -> None:
    found = find_break_even([staircase(price=2, capacity=10, minimum=3, maximum=5)], 0.5)
    assert found is not None
    assert (found.first, found.crossings) == (12, 1)


def test_the_price_of_a_request_counts_input_and_output() -> None:
    price = next(
        item for item in load_api_prices() if (item.provider, item.model) == ("OpenAI", "gpt-5-mini")
    )
    assert (price.input_per_million, price.output_per_million) == (Decimal("0.25"), Decimal(2))
    assert request_price(price, LoadShape(1000, 100)) == Decimal("0.00045")


def test_every_reference_is_in_the_catalogue() -> None:
    known = {(price.provider, price.model) for price in load_api_prices()}
    assert set(REFERENCES) <= known
