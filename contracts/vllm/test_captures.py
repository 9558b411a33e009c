"""The committed captures are what this vLLM does: the ordinary tests hold Modelyard and the stand-in against them."""

import os
from datetime import UTC, datetime

from dev.vllm.captures import METRICS, build_capture, read_capture, write_capture
from dev.vllm.environment import read_arguments
from tests.unit.standin.test_metrics import describe

UPDATE = os.environ.get("MODELYARD_UPDATE_CONTRACT") == "1"


def test_the_captures_are_true(environment, live):
    record = live("defaults")
    capture = build_capture(read_arguments(environment, []), record)
    if UPDATE:
        write_capture({"captured": datetime.now(UTC).date().isoformat(), **capture}, record.metrics_before)
    committed = read_capture()
    del committed["captured"], committed["versions"]["python"], capture["versions"]["python"]
    assert capture == committed
    assert describe(record.metrics_before) == describe(METRICS.read_text())
