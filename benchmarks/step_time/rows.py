"""The measured rows, what each says, and which of them are no measurement of what their columns say."""

import csv
import gzip
import hashlib
import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from modelyard.api.modelprofile import ModelProfile
from modelyard.catalog.accelerators import find_hardware
from modelyard.catalog.hardware import Hardware
from modelyard.catalog.models import find_model
from modelyard.catalog.quantization import WeightFormat, weight_format
from modelyard.core.load import LoadShape
from modelyard.core.perf.prior import DECODE_TERMS, decode_terms
from modelyard.core.perf.work import Work, roofline

DATA = Path(__file__).parents[1] / "data" / "step-time"

ENGINES = {"vllm": "vLLM", "trtllm": "TensorRT-LLM", "sglang": "SGLang"}
"""Names in the calibration table, by the data's."""
SYSTEMS = {"h100_sxm": "H100-SXM", "h200_sxm": "H200", "b200_sxm": "B200", "gb200": "GB200"}
"""Names in the catalogue of accelerators, by the data's."""
MODELS = {
    "nvidia/Llama-3.1-8B-Instruct-FP8": "meta-llama/Llama-3.1-8B-Instruct",
    "nvidia/Qwen3-32B-NVFP4": "Qwen/Qwen3-32B",
}
"""Names in the catalogue of models, where the data's are of copies."""
STATED = ("isl", "osl", "batch_size", "tp_size", "moe_ep_size")
MEMORY_SHARE = 0.9
"""Share of the memory that engines take by default, vLLM's `--gpu-memory-utilization` among them."""
RESERVE = 2e9
"""Bytes of each GPU for activations and graphs: an assumption of ours, only used for the size of the cache."""
MEAN_LENGTH_A = 0.9
"""Campaign A draws lengths evenly from 0.8 to 1 times those stated: `RANDOM_RANGE_RATIO` of
https://github.com/InferenceMAX/InferenceMAX (README of its first version)."""
IMPOSSIBLE_SHARE = 0.25
"""Share: a run is left out if more of its rows beat the hardware; single rows may do so by chance."""
MISDESCRIBED = "a run with rows whose GPUs cannot hold the weights: its columns do not state the layout"
NODE_GPUS = 8
"""GPUs of one NVLink domain of the systems measured, GB200 aside."""


@dataclass(frozen=True, slots=True)
class Row:
    """One configuration, and what was measured (the median of repeated rows)."""

    model: str
    system: str
    engine: str
    precision: str
    campaign: str
    version: str
    stated: tuple[int, ...]
    """The columns `STATED`."""
    shape: LoadShape
    concurrency: float
    """Requests that the load generator keeps open."""
    batch: float
    """Sequences that run: the concurrency, or fewer where the cache holds fewer."""
    work: Work
    inter_token_latency: float
    time_to_first_token: float

    @property
    def generation(self) -> str:
        """The GPUs' generation."""
        return "hopper" if self.system.startswith("H") else "blackwell"

    @property
    def group(self) -> str:
        """Model and GPU."""
        return f"{self.model.split('/')[-1]} on {self.system}"

    @property
    def run(self) -> tuple[str, ...]:
        """What was measured in one go."""
        return (self.model, self.system, self.engine, self.version, self.campaign)

    @property
    def slot_wait(self) -> bool:
        """Whether each request waited for another to end.

        TensorRT-LLM in campaign B: its time to first token grows with the output length and falls with the batch, by
        the service time divided by the batch, as it does where the last request always waits for a slot.
        """
        return self.engine == "TensorRT-LLM" and self.campaign == "B"

    @property
    def key(self) -> str:
        """What tells a configuration from the others: equal for repeated measurements."""
        return "|".join(
            (
                self.model,
                self.system,
                self.engine,
                self.version,
                self.campaign,
                self.precision,
                *map(str, self.stated),
            )
        )


@dataclass(slots=True)
class Measurements:
    """The rows to use, and how many were left out, by reason."""

    rows: list[Row] = field(default_factory=list)
    excluded: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    total: int = 0


def measurements(path: Path = DATA / "measurements.csv.gz") -> Measurements:
    """Read the rows; each row is used, excluded with a reason, or merged with its repetitions."""
    result, found = Measurements(), defaultdict[str, list[Row]](list)
    with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
        records = [(record, _row(record)) for record in csv.DictReader(file)]
    result.total = len(records)
    misdescribed = {row.run for record, row in records if not _fits(record, row)}
    for record, row in records:
        reason = MISDESCRIBED if row.run in misdescribed else _reason(record, row)
        if reason:
            result.excluded[reason] += 1
        else:
            found[row.key].append(row)
    for same in found.values():
        result.repeated += len(same) - 1
        result.rows.append(_median(same))
    _drop_impossible_runs(result)
    return result


def _drop_impossible_runs(result: Measurements) -> None:
    """Leave out runs that are faster than the hardware: their prompts were not all computed."""
    runs = defaultdict[tuple[str, ...], list[Row]](list)
    for row in result.rows:
        runs[row.run].append(row)
    for run in runs.values():
        if sum(map(_beats_hardware, run)) > IMPOSSIBLE_SHARE * len(run):
            result.excluded["a run that beats the hardware's peak: prompts came from a prefix cache"] += len(
                run
            )
            result.rows = [row for row in result.rows if row not in run]


def _beats_hardware(row: Row) -> bool:
    """Whether a token took less time than to read weights and cache and to multiply the prompts, at peak."""
    terms = dict(zip(DECODE_TERMS, decode_terms(row.work, row.shape, row.batch), strict=True))
    peak = sum(terms[name] for name in ("read", "cache", "prefill", "prefill_quantized"))
    return row.inter_token_latency < peak


def held_out_group(row: Row) -> bool:
    """Whether no row of this model and GPU is fitted to: one of five pairs, by hash."""
    return _hash(f"{row.model}|{row.system}") % 5 == 0


def held_out(row: Row) -> bool:
    """Whether the row is not fitted to: a row of a held-out pair, or one of five rows of any other, by hash."""
    return held_out_group(row) or _hash(row.key) % 5 == 0


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _row(record: dict[str, str]) -> Row:
    model, system = MODELS.get(record["model_path"], record["model_path"]), SYSTEMS[record["system"]]
    precision, tensor = record["precision"] or "bf16", int(record["tp_size"])
    profile, weights, hardware = _profile(model), _weights(model, precision), _hardware(system)
    # The data do not state the cache's precision. The quantised checkpoints that were measured state fp8.
    value = 2.0 if precision == "bf16" else 1.0
    work = roofline(profile, weights, hardware, cache_bytes=value, tensor=tensor)
    assert work is not None
    assert hardware.bandwidth is not None
    scale = MEAN_LENGTH_A if record["campaign"] == "A" else 1.0
    shape = LoadShape(input_tokens=scale * int(record["isl"]), output_tokens=scale * int(record["osl"]))
    concurrency = int(record["batch_size"])
    room = (MEMORY_SHARE * hardware.memory - RESERVE) * tensor - profile.parameters * weights.bits / 8
    held = work.cache * hardware.bandwidth * tensor * (1 - work.windowed_share)
    fitting = room / held / (shape.input_tokens + shape.output_tokens / 2)
    return Row(
        model=model,
        system=system,
        engine=ENGINES[record["backend"]],
        precision=precision,
        campaign=record["campaign"],
        version=record["backend_version"],
        stated=tuple(int(record[name]) for name in STATED),
        shape=shape,
        concurrency=concurrency,
        batch=min(concurrency, max(1.0, fitting)),
        work=work,
        inter_token_latency=float(record["silicon_tpot_ms"]) / 1e3,
        time_to_first_token=float(record["silicon_ttft_ms"]) / 1e3,
    )


def _profile(model: str) -> ModelProfile:
    known = find_model(model)
    assert known is not None, model
    return known.profile


def _hardware(system: str) -> Hardware:
    known = find_hardware(system)
    assert known is not None, system
    return known


def _weights(model: str, precision: str) -> WeightFormat:
    # gpt-oss is published in MXFP4 only; its rows state fp4 or the precision of its activations.
    known = weight_format("mxfp4" if model == "openai/gpt-oss-120b" else precision)
    assert known is not None, precision
    return known


def _fits(record: dict[str, str], row: Row) -> bool:
    """Whether the GPUs that a row states can hold the weights."""
    weights = _profile(row.model).parameters * _weights(row.model, row.precision).bits / 8
    return weights <= MEMORY_SHARE * _hardware(row.system).memory * int(record["tp_size"])


def _reason(record: dict[str, str], row: Row) -> str:
    """Why a row is no measurement of what its columns say; empty if it is one."""
    tensor = int(record["tp_size"])
    if record["silicon_concurrency"] not in ("", record["batch_size"]):
        return "concurrency is a multiple of the batch: several ranks or replicas that no column states"
    if tensor > NODE_GPUS:
        return f"more than {NODE_GPUS} GPUs: tensor times expert parallelism in one column"
    if row.system == "GB200" and row.version == "1.3.0rc1":
        return "GB200 run whose times fall and rise with the batch (8 and 42 ms for the same configuration)"
    if row.campaign == "A" and row.concurrency >= 512:
        return "512 requests to engines that ran far fewer at a time (up to 97 % of the time before the first token)"
    return ""


def _median(same: list[Row]) -> Row:
    first = same[0]
    return Row(
        **{name: getattr(first, name) for name in Row.__slots__ if name not in _MEASURED},
        inter_token_latency=statistics.median(row.inter_token_latency for row in same),
        time_to_first_token=statistics.median(row.time_to_first_token for row in same),
    )


_MEASURED = ("inter_token_latency", "time_to_first_token")
