"""The mean request, measured at the gateway."""

import pytest

from modelyard.core.load import LoadShape
from modelyard.core.shape import ENOUGH, WINDOW, ShapeMemory, current_shape, observe_shape, shape_changed
from modelyard.core.snapshot import GatewayReading
from tests.unit.core.build import KEY, NOW


def read(requests: float, *, age: float = 0.0, tokens: tuple[float, float] = (100.0, 20.0)) -> GatewayReading:
    """Counters after so many requests of that many tokens each."""
    return GatewayReading(
        NOW - age,
        answers={KEY: requests, "team/other": 9e9},
        input_tokens={KEY: requests * tokens[0]},
        output_tokens={KEY: requests * tokens[1]},
    )


def observe(*readings: GatewayReading, memory: ShapeMemory | None = None) -> ShapeMemory:
    memory = memory or ShapeMemory()
    for reading in readings:
        memory = observe_shape(memory, reading, KEY)
    return memory


MEASURED = LoadShape(100.0, 20.0)


def test_the_mean_of_enough_requests_is_the_shape():
    assert observe(read(0, age=60), read(ENOUGH - 1)).shape is None
    assert observe(read(0, age=60), read(ENOUGH)).shape == MEASURED
    assert observe(read(1000)).shape is None


def test_until_it_is_measured_the_expected_one_counts():
    expected = LoadShape(7.0, 8.0)
    assert current_shape(ShapeMemory(), expected) is expected
    assert current_shape(ShapeMemory(shape=MEASURED), expected) is MEASURED


def test_adapters_count_for_their_deployment():
    reading = GatewayReading(NOW, answers={KEY: 40, f"{KEY}:lora": 60}, input_tokens={f"{KEY}:lora": 500})
    assert observe(read(0, age=60), reading).shape == LoadShape(5.0, 1.0)


def test_the_same_reading_twice_changes_nothing():
    memory = observe(read(0, age=60), read(40, age=30))
    again = observe(read(40, age=30), read(0, age=60), memory=memory)
    assert again == memory
    assert observe(read(80), memory=again).shape == MEASURED


def test_counters_that_start_again_start_the_history_again():
    memory = observe(read(1000, age=120), read(1030, age=90), read(10, age=60))
    assert len(memory.samples) == 1
    assert observe(read(10 + ENOUGH), memory=memory).shape == MEASURED


def test_small_moves_leave_the_shape_as_it_is():
    memory = observe(read(0, age=120), read(100, age=60))
    small = GatewayReading(NOW, {}, {}, {KEY: 1000}, {KEY: 1000 * 23.0}, {KEY: 1000 * 115.0})
    assert observe(small, memory=memory).shape == MEASURED
    large = GatewayReading(NOW, {}, {}, {KEY: 1000}, {KEY: 1000 * 30.0}, {KEY: 1000 * 115.0})
    assert observe(large, memory=memory).shape == LoadShape(115.0, 30.0)


@pytest.mark.parametrize(
    ("after", "changed"),
    [((120.0, 20.0), False), ((121.0, 20.0), True), ((79.0, 20.0), True), ((100.0, 25.0), True)],
)
def test_a_fifth_is_a_change(after: tuple[float, float], changed: bool):
    assert shape_changed(MEASURED, LoadShape(*after)) is changed


def test_memory_is_bounded_and_follows_the_last_half_hour():
    memory, tokens = ShapeMemory(), 0.0
    for count in range(800):
        now = NOW + 5 * count
        memory = observe(
            GatewayReading(now, {}, {}, {KEY: count}, {KEY: count}, {KEY: tokens}), memory=memory
        )
        tokens += 100.0 if count < 400 else 300.0
    assert memory.samples[0].time >= memory.samples[-1].time - WINDOW
    assert len(memory.samples) <= WINDOW / 60 + 2
    assert memory.shape is not None
    # Within a fifth of what clients send since more than half an hour.
    assert memory.shape.input_tokens == pytest.approx(300.0, rel=0.2)
