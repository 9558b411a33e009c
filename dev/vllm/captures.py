"""What was captured of the real vLLM, for tests that cannot run it. `make contract-vllm UPDATE=1` writes it anew."""

import json
from pathlib import Path
from typing import Any

from dev.vllm.record import Record, shape

FIXTURES = Path(__file__).parents[2] / "tests" / "fixtures"
METRICS = FIXTURES / "vllm-0.32-contract-metrics.txt"
CAPTURE = FIXTURES / "vllm-0.32.json"


def read_capture() -> dict[str, Any]:
    """Return versions, date, flags, methods of quantisation, and the shapes of answers by request."""
    capture: dict[str, Any] = json.loads(CAPTURE.read_text())
    return capture


def write_capture(capture: dict[str, Any], metrics: str) -> None:
    """Replace the captures."""
    CAPTURE.write_text(json.dumps(capture, indent=1) + "\n")
    METRICS.write_text(metrics)


def build_capture(report: dict[str, Any], record: Record) -> dict[str, Any]:
    """Return what is captured of vLLM's parser and of a server's life, without the date."""
    answers = {**record.answers, "models": record.models, "version": record.version}
    return {
        "versions": report["versions"],
        "flags": report["flags"],
        "quantization": report["quantization"],
        "tool parsers": report["tool parsers"],
        "reasoning parsers": report["reasoning parsers"],
        "answers": {
            name: {"status": answer.status, "objects": shape(answer.objects)}
            for name, answer in sorted(answers.items())
            if answer is not None
        },
    }
