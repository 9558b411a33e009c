"""The simulator in closed loop against measured configurations, beside what the calibrated model says of them."""

import math
import statistics

import pytest

from benchmarks.step_time.rows import Row, held_out, measurements
from modelyard.catalog.calibration import calibration_table
from modelyard.core.perf.prior import step_time
from modelyard.simulator.scenario import Engine
from tests.unit.simulator.play import closed_loop

LARGEST_BATCH = 128
MOST_TOKENS = 2048
"""Of an answer: longer ones only take longer to simulate."""
PROMPT_SHARE = 0.35
"""Above this share of the time for prompts, they come in bunches, and the steps to a first token exceed the law."""


def chosen() -> list[Row]:
    """vLLM's configurations that the calibration was not fitted to, as far as their batch fits in the cache."""
    return [
        row
        for row in measurements().rows
        if held_out(row)
        and row.engine == "vLLM"
        and row.concurrency == row.batch <= LARGEST_BATCH
        and row.shape.output_tokens <= MOST_TOKENS
    ]


def engine(row: Row) -> Engine:
    calibration = next(
        entry
        for entry in calibration_table().calibrations
        if (entry.engine, entry.generation) == (row.engine, row.generation)
    )
    return Engine(step_time(row.work, calibration), cache_tokens=10**8, max_sequences=512)


@pytest.fixture(scope="module")
def compared():
    """Each configuration with what was simulated and what the model says of it, as (inter-token, first token)."""
    result = []
    for row in chosen():
        replica = engine(row)
        seen = closed_loop(replica, row.shape, int(row.concurrency), rounds=12, spread=0.2)
        model = (
            replica.step.inter_token_latency(row.shape, row.batch),
            replica.step.time_to_first_token(row.shape, row.batch),
        )
        share = (
            1
            - replica.step.decode(row.batch, row.shape.input_tokens + row.shape.output_tokens / 2) / model[0]
        )
        result.append((row, (seen.inter_token, seen.first_token), model, share))
    return result


def median_error(pairs) -> float:
    return statistics.median(abs(math.log(said / measured)) for said, measured in pairs)


def test_there_are_enough_rows(compared):
    assert len(compared) >= 30


def test_simulated_latencies_are_as_near_to_the_measured_ones_as_the_calibrated_model(compared):
    for which, measured, bar in (
        (0, [row.inter_token_latency for row, *_ in compared], 0.10),
        (1, [row.time_to_first_token for row, *_ in compared], 0.20),
    ):
        simulated = median_error(zip([seen[which] for _, seen, _, _ in compared], measured, strict=True))
        model = median_error(zip([said[which] for _, _, said, _ in compared], measured, strict=True))
        assert simulated <= bar
        assert simulated <= model + 0.03


def test_simulated_latencies_are_those_of_the_model_where_prompts_take_little(compared):
    few = [(seen, said) for _, seen, said, share in compared if share < PROMPT_SHARE]
    assert len(few) >= 20
    assert median_error((seen[0], said[0]) for seen, said in few) < 0.03
    assert median_error((seen[1], said[1]) for seen, said in few) < 0.03
