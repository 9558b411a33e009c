"""What the gateway's filters cost: every Envoy of the two ladders runs and answers."""

import asyncio

import pytest

from benchmarks.gateway import filters
from benchmarks.gateway.contenders import OURS, PLAIN
from modelyard.core.routing import Route, WeightedTarget
from modelyard.render.envoy.clusters import cluster
from modelyard.render.envoy.forwarding import Choice, forward
from modelyard.render.envoy.listener import listener
from modelyard.render.envoy.settings import GatewaySettings

ROW = filters.Row("few", "few", "chat", 2, 4, 4)
SETTINGS = GatewaySettings()


def test_every_envoy_answers():
    measured = asyncio.run(filters.measure((), 1, [ROW], lambda _: None))
    assert measured["few"].keys() == {*filters.FLOOR, *(variant.name for variant in filters.VARIANTS)}
    assert all(len(rounds) == 1 and rounds[0] > 0 for rounds in measured["few"].values())


def test_words_choose_what_is_measured_beside_the_tops_of_the_ladders():
    measured = asyncio.run(filters.measure(("hold",), 2, [ROW], lambda _: None))
    assert measured["few"].keys() == {PLAIN, OURS, "- hold"}
    assert all(len(rounds) == 2 for rounds in measured["few"].values())


@pytest.mark.parametrize("variant", filters.VARIANTS[1:], ids=lambda variant: variant.name)
def test_each_variant_lacks_something(variant, upstream):
    route = Route("t/m", ("m",), (WeightedTarget("t/m"),))
    given = (
        lambda: listener(SETTINGS),
        lambda: cluster(upstream, SETTINGS),
        lambda: forward(route, Choice(1, ("t/m~z0",)), SETTINGS),
    )
    edits = (variant.listener, variant.cluster, variant.route)
    changed = [edit(make()) != make() for edit, make in zip(edits, given, strict=True)]
    assert any(changed) or variant.alike


@pytest.fixture
def upstream():
    return next(iter(filters.models_table([0], None).upstreams.values()))


def test_a_filter_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="nowhere"):
        filters.without_filters("nowhere")(listener(SETTINGS))


def test_the_table_has_the_least_of_all_rounds_and_the_distance_to_the_top_of_the_ladder():
    measured = {
        "2 KB": {PLAIN: [60.0, 50.0], "+ Lua": [58.0, 70.0], OURS: [130.0, 150.0], "- hold": [140.0, 125.0]}
    }
    assert filters.table(measured).splitlines() == [
        "|  | 2 KB, us |  |",
        "| --- | --- | --- |",
        f"| {PLAIN} | 50 |  |",
        "| + Lua | 58 | +8 |",
        f"| {OURS} | 130 | +80 |",
        "| - hold | 125 | -5 |",
    ]
