"""What an engine says of itself, and what two such readings of one pod teach about its speed."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import chain
from typing import Final

from modelyard.core.perf.learning import Observation

FEWEST_TOKENS = 200
"""Latencies between tokens that an observation averages, at least: single steps scatter by their prompts."""
FEWEST_REQUESTS = 50
"""Finished requests that an observation averages, at least. Lengths of requests scatter as much as their mean (the
conversation trace of Azure 2023, https://github.com/Azure/AzurePublicDataset, has a deviation near its mean), so that
the recent mean of the learning, which weighs the newest of them 0.3, stays within 0.42 / sqrt(50) = 6 % of the truth.
Its threshold for a change of traffic is 20 %."""
LONGEST_WINDOW = 900.0
"""Seconds between the two readings, at most: what takes longer than this is an engine that hardly works."""
QUEUED_STEPS = 2.0
"""Decode steps that a request may wait before the engine takes it on and still count as not queued: it comes in the
middle of a step and is scheduled at the next."""
QUEUED_SHARE = 0.1
"""Share of the time to first token that may be spent queued, where that is longer: a step that carries a long prompt
takes longer than the mean."""

SHORTEST_EDGE, LONGEST_EDGE = 1e-9, 1e9
"""Seconds. Edges of buckets that are no latency: a page with others is not one of an engine."""

_GAUGE_OF_ENGINES: Final = "running"
_OPTIONAL: Final = frozenset({"created", "steps", "cache_hits", "cache_queries", "answer_pace_seconds"})

ENGINE_SERIES: Final[Mapping[str, Mapping[str, str]]] = {
    # vLLM 0.32, `vllm/v1/metrics/loggers.py`; https://docs.vllm.ai/en/stable/usage/metrics/.
    "vLLM": {
        "vllm:num_requests_running": _GAUGE_OF_ENGINES,
        "vllm:num_requests_waiting": "waiting",
        "vllm:inter_token_latency_seconds_created": "created",
        "vllm:inter_token_latency_seconds_sum": "inter_token_seconds",
        "vllm:inter_token_latency_seconds_count": "inter_tokens",
        "vllm:time_to_first_token_seconds_sum": "first_token_seconds",
        "vllm:time_to_first_token_seconds_count": "first_tokens",
        "vllm:request_time_per_output_token_seconds_sum": "answer_pace_seconds",
        "vllm:request_queue_time_seconds_sum": "queue_seconds",
        "vllm:request_prompt_tokens_sum": "input_tokens",
        "vllm:request_generation_tokens_sum": "output_tokens",
        "vllm:request_generation_tokens_count": "finished",
        "vllm:iteration_tokens_total_count": "steps",
        "vllm:prefix_cache_hits": "cache_hits",
        "vllm:prefix_cache_queries": "cache_queries",
    },
}
"""Series that are read, by engine, and the fields of `EngineReading` that they add to. llama.cpp is missing: its page
has totals of tokens and seconds over all slots, but no latencies of requests
(https://github.com/ggml-org/llama.cpp/tree/master/tools/server, `GET /metrics`)."""

ENGINE_BUCKETS: Final[Mapping[str, Mapping[str, str]]] = {
    "vLLM": {
        "vllm:time_to_first_token_seconds_bucket": "first_token_buckets",
        "vllm:request_time_per_output_token_seconds_bucket": "answer_pace_buckets",
    },
}
"""Series of buckets that are read, by engine, and the fields of `EngineReading` that they fill. A page may lack them:
speed is learned without."""

Buckets = tuple[tuple[float, float], ...]
"""A histogram: the upper edge of each bucket in seconds, infinity at last, and how many values are at or below it."""

METRICS_PATH: Final[Mapping[str, str]] = {"vLLM": "/metrics"}
"""Where the engines that are read serve their page, on their own port."""


class UnreadablePageError(ValueError):
    """A page that is not what the engine serves."""


@dataclass(frozen=True, slots=True)
class EngineReading:
    """Sums over the engines of one pod: gauges of the moment, and counts since the pod's engines started."""

    time: float
    """Unix seconds."""
    engines: int
    """How many there are: more than one where the pod runs data-parallel ranks."""
    running: float
    """Sequences in the batch."""
    waiting: float
    """Requests in the queue."""
    inter_token_seconds: float
    inter_tokens: float
    """Latencies between tokens that were measured: one for each step and sequence."""
    first_token_seconds: float
    """From arrival to first token, queueing included."""
    first_tokens: float
    queue_seconds: float
    """That finished requests waited until the engine took them on."""
    input_tokens: float
    """Of finished requests, like the output tokens."""
    output_tokens: float
    finished: float
    steps: float = 0.0
    """Steps that gave output; 0: not told."""
    cache_hits: float = 0.0
    """Prompt tokens found in the prefix cache, of `cache_queries` that were looked for."""
    cache_queries: float = 0.0
    answer_pace_seconds: float = 0.0
    """Sum over finished requests of each one's mean time per output token after the first."""
    created: float = 0.0
    """Unix seconds, by the pod's clock, since which it counts, summed like the rest; 0: not told."""
    first_token_buckets: Buckets = ()
    """Times to first token, queueing included; none: not told."""
    answer_pace_buckets: Buckets = ()
    """Mean times per output token of finished requests, 0 for an answer of one token; none: not told."""

    @property
    def started(self) -> float:
        """Unix seconds at which the engines started, on average; 0: not told."""
        return self.created / self.engines


_GAUGES = frozenset({"time", "engines", "running", "waiting", "created"})
_BUCKETS = ("first_token_buckets", "answer_pace_buckets")
_COUNTERS = tuple(item.name for item in fields(EngineReading) if item.name not in _GAUGES.union(_BUCKETS))


def _compile(engine: str) -> re.Pattern[str]:
    names = "|".join(re.escape(name) for name in (*ENGINE_SERIES[engine], *ENGINE_BUCKETS[engine]))
    return re.compile(rf"^({names})(?:_total)?(\{{[^\n]*\}})? +(\S+)(?: +\d+)?$", re.MULTILINE)


# One sample a line (https://prometheus.io/docs/instrumenting/exposition_formats/). prometheus_client's parser takes
# 9 ms for a page of vLLM 0.32 (50 KB, mostly buckets), this 0.4 ms, and hundreds of pages are read every few seconds
# on the operator's event loop.
_SAMPLES = {engine: _compile(engine) for engine in ENGINE_SERIES}
# A quote within another label's value is escaped, so that this is found in none.
_EDGE = re.compile(r'[{,]le="([^"]*)"')


def parse_engine(engine: str, page: str, time: float) -> EngineReading:
    """Return what a page of an engine in `ENGINE_SERIES` says, read at `time` (Unix seconds).

    Raises UnreadablePageError if a series is missing or a value is not a number that a count can have.
    """
    series, histograms = ENGINE_SERIES[engine], ENGINE_BUCKETS[engine]
    sums: dict[str, float] = {}
    counts: dict[str, dict[float, float]] = {name: {} for name in histograms.values()}
    engines = 0
    for sample, labels, raw in _SAMPLES[engine].findall(page):
        value = _parse_count(sample, raw)
        if sample in histograms:
            buckets, edge = counts[histograms[sample]], _parse_edge(sample, labels)
            buckets[edge] = buckets.get(edge, 0.0) + value
        else:
            name = series[sample]
            sums[name] = sums.get(name, 0.0) + value
            engines += name == _GAUGE_OF_ENGINES
    missing = [series for series, name in series.items() if name not in sums and name not in _OPTIONAL]
    missing += [
        series for series, name in histograms.items() if counts[name] and math.inf not in counts[name]
    ]
    if missing:
        raise UnreadablePageError(f"the page lacks {', '.join(missing)}")
    if not all(map(math.isfinite, chain(sums.values(), *(buckets.values() for buckets in counts.values())))):
        raise UnreadablePageError("the engines' counts have no finite sum")
    histogram = {name: tuple(sorted(buckets.items())) for name, buckets in counts.items()}
    return EngineReading(
        time=time,
        engines=engines,
        first_token_buckets=histogram["first_token_buckets"],
        answer_pace_buckets=histogram["answer_pace_buckets"],
        **sums,
    )


def _parse_count(name: str, raw: str) -> float:
    try:
        value = float(raw)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise UnreadablePageError(f"{name} is {raw[:20]}")
    return value


def _parse_edge(name: str, labels: str) -> float:
    """Return the upper edge of a bucket in seconds."""
    found = _EDGE.search(labels)
    try:
        edge = float(found[1]) if found is not None else math.nan
    except ValueError:
        edge = math.nan
    if not (SHORTEST_EDGE <= edge <= LONGEST_EDGE or edge == math.inf):
        raise UnreadablePageError(f"{name} has a bucket without an edge")
    return edge


def has_restarted(before: EngineReading, after: EngineReading) -> bool:
    """Whether an engine of the pod began to count anew between two readings."""
    return (
        before.engines != after.engines
        or before.created != after.created
        or any(getattr(after, name) < getattr(before, name) for name in _COUNTERS)
        or any(_fell(getattr(before, name), getattr(after, name)) for name in _BUCKETS)
    )


def _fell(before: Buckets, after: Buckets) -> bool:
    """Whether a histogram lost counts, or is another one."""
    if len(before) != len(after):
        return True
    return any(
        edge != same or count < known for (same, known), (edge, count) in zip(before, after, strict=True)
    )


def compare_readings(before: EngineReading, after: EngineReading, warm_seconds: float) -> Observation | None:
    """Return what happened between two readings of one pod without a restart; None: too little to learn from.

    `warm_seconds` is how long the pod was warm at the first of them.

    Lengths are those of the requests that finished: in a steady state they are the mean of all. The time to first
    token is None where requests queued for room: the step-time model has no such wait.
    """
    change = {name: getattr(after, name) - getattr(before, name) for name in _COUNTERS}
    interval = after.time - before.time
    if interval <= 0 or change["inter_tokens"] < FEWEST_TOKENS or change["finished"] < FEWEST_REQUESTS:
        return None
    inter_token = change["inter_token_seconds"] / change["inter_tokens"]
    queries = change["cache_queries"]
    return Observation(
        time=after.time,
        warm_seconds=warm_seconds,
        batch=_batch(change, interval, after.engines),
        inter_token_latency=inter_token,
        time_to_first_token=_first_token(before, after, change, inter_token),
        input_tokens=change["input_tokens"] / change["finished"],
        output_tokens=change["output_tokens"] / change["finished"],
        cached_share=min(1.0, change["cache_hits"] / queries) if queries > 0 else 0.0,
    )


def _batch(change: Mapping[str, float], interval: float, engines: int) -> float:
    """Mean sequences that one engine runs while it works.

    By Little's law (https://en.wikipedia.org/wiki/Little%27s_law): the sum of the latencies between tokens grows by
    one second for each second and running sequence, so that over an interval it counts the mean batch, where two
    readings of a gauge are two moments. That mean takes in the time in which nothing runs, and no latency was measured
    then: of an engine that idles half of the time it is half of the batch that the latencies belong to. The latencies
    measured per step leave idle time out, but take in steps that only prefill. Both are low where they are wrong, so
    the larger counts.
    """
    by_time = change["inter_token_seconds"] / interval / engines
    by_step = change["inter_tokens"] / change["steps"] if change["steps"] > 0 else 0.0
    return max(by_time, by_step)


def _first_token(
    before: EngineReading, after: EngineReading, change: Mapping[str, float], inter_token: float
) -> float | None:
    if before.waiting or after.waiting or change["first_tokens"] <= 0:
        return None
    first_token = change["first_token_seconds"] / change["first_tokens"]
    queued = change["queue_seconds"] / change["finished"]
    return first_token if queued <= max(QUEUED_STEPS * inter_token, QUEUED_SHARE * first_token) else None
