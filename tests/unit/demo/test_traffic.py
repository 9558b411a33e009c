"""What the demo plays, against what it promises: ten minutes in four, at most 20 requests/s, 5 to 7 replicas' worth."""

from pathlib import Path

import pytest

from dev.demo.settings import EXPECTED_PEAK, REPLICA_RATE, DemoSettings
from dev.demo.traffic import plan_traffic
from dev.loadgen.schedule import peak_rate


@pytest.mark.parametrize("minutes", [1.0, 2.0, 4.0])
def test_the_load_asks_for_five_to_seven_replicas(minutes: float) -> None:
    planned = plan_traffic(DemoSettings(folder=Path("run"), report=Path("report"), minutes=minutes))
    assert planned[-1].at_s <= 60 * minutes
    peak = peak_rate(planned)
    assert peak <= 20
    # The operator plans with 80 % of what a replica can do.
    assert peak / (0.8 * REPLICA_RATE) > EXPECTED_PEAK.start - 1
    assert peak <= REPLICA_RATE * (EXPECTED_PEAK.stop - 1)


def test_a_full_run_sends_every_request_of_the_window() -> None:
    planned = plan_traffic(DemoSettings(folder=Path("run"), report=Path("report")))
    assert len(planned) == 3342
    assert max(request.prompt_tokens + request.output_tokens for request in planned) <= 16_384
