"""Published figures of accelerators and models without measurements, against the stated uncertainty.

A figure is compared where it gives, or lets one work out, the batch: sequences = output tokens per second times the
time per token (Little's law), or the batch that the source states.

Sources differ in their engines: one of July 2024 takes 1.5 to 1.9 times as long as those measured for the calibration
on the same models and GPUs. So each figure is compared twice: as published, and relative to what its source gives for
pairs that the calibration contains.
"""

import csv
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.step_time.rows import DATA
from modelyard.catalog.accelerators import find_hardware
from modelyard.catalog.models import find_model
from modelyard.core.load import LoadShape
from modelyard.core.perf.prior import prior

MODELS = {
    "Llama-3.1-8B": "meta-llama/Llama-3.1-8B-Instruct",
    "Llama-3.1-70B": "meta-llama/Llama-3.1-70B-Instruct",
    "Mistral-7B-Instruct-v0.3": "mistralai/Mistral-7B-Instruct-v0.3",
    "Mixtral-8x7B": "mistralai/Mixtral-8x7B-Instruct-v0.1",
    "Qwen2.5-Coder-32B": "Qwen/Qwen2.5-Coder-32B-Instruct",
}
GPUS = {
    "A100-80GB": "A100-80GB-SXM",
    "A100-SXM": "A100-80GB-SXM",
    "H100": "H100-SXM",
    "H100-SXM": "H100-SXM",
    "H100-NVL": "H100-NVL",
    "L40S": "L40S",
}
MEASURED = {("Llama-3.1-8B", "H100-SXM"), ("Llama-3.1-70B", "H100-SXM")}
"""Pairs of model and GPU that the measurements contain."""
SHAREGPT = LoadShape(input_tokens=220.0, output_tokens=200.0)
"""Means of the ShareGPT sample of vLLM's benchmark, which the sources use or do not contradict: an assumption."""
_BATCH = re.compile(r"batch (\d+)")
_MORE = re.compile(r"(\d+) at batch (\d+)")


@dataclass(frozen=True, slots=True)
class Split:
    """Tensor parallelism only."""

    tensor: int
    pipeline: int = 1
    nodes: int = 1


@dataclass(frozen=True, slots=True)
class Check:
    """One figure and its prediction."""

    name: str
    source: str
    measured: bool
    """Whether the calibration contains this pair."""
    origin: str
    published: float
    """Seconds between tokens."""
    predicted: float
    """Seconds between tokens."""
    uncertainty: float
    """One standard deviation of the logarithm."""

    @property
    def deviations(self) -> float:
        """How many standard deviations the figure lies off."""
        return abs(math.log(self.predicted / self.published)) / self.uncertainty


def relative(found: Sequence[Check]) -> list[Check]:
    """Divide the figures of other pairs by how much longer their source takes for measured pairs (the median)."""
    result = []
    for check in found:
        common = [other for other in found if other.measured and other.source == check.source]
        if common and not check.measured:
            slower = statistics.median(other.published / other.predicted for other in common)
            result.append(replace(check, published=check.published / slower))
    return result


def checks(path: Path = DATA / "public-throughput.csv") -> list[Check]:
    """Compare every figure whose batch is known."""
    with path.open(newline="", encoding="utf-8") as file:
        records = [row for row in csv.DictReader(file) if row["model"] in MODELS and row["gpu"] in GPUS]
    return [check for record in records for check in _compare(record)]


def _compare(record: dict[str, str]) -> list[Check]:
    model, gpu = find_model(MODELS[record["model"]]), find_hardware(GPUS[record["gpu"]])
    if model is None or gpu is None:
        return []
    step = prior(model.profile, record["precision"].lower(), gpu, Split(int(record["tp"])), "auto", "vLLM")
    assert step is not None
    return [
        Check(
            name=f"{record['model']} {record['precision']} on {record['tp']} x {gpu.name}, batch {batch:.0f}",
            source=record["source"].split()[0],
            measured=(record["model"], gpu.name) in MEASURED,
            origin=step.origin,
            published=latency,
            predicted=step.inter_token_latency(SHAREGPT, batch),
            uncertainty=step.uncertainty,
        )
        for latency, batch in _points(record)
    ]


def _points(record: dict[str, str]) -> list[tuple[float, float]]:
    """Seconds between tokens, and the batch."""
    rate = float(record["output_tok_s"])
    if record["median_tpot_ms"]:
        latency = float(record["median_tpot_ms"]) / 1e3
        return [(latency, rate * latency)]
    stated = _BATCH.search(record["source"])
    points = [(int(stated[1]) / rate, float(stated[1]))] if stated else []
    return points + [
        (int(size) / float(speed), float(size)) for speed, size in _MORE.findall(record["source"])
    ]
