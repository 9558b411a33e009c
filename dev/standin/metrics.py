"""vLLM 0.32's metrics, with the values of the stand-in's scheduler."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.process_collector import ProcessCollector

from dev.standin.scheduler import FinishReason, Limits, Scheduler, Sequence, Step, StepResult
from dev.standin.settings import MetricsMode

if TYPE_CHECKING:
    from collections.abc import Callable

ENGINE = "0"
"""Value of the label `engine`: the only engine of the process."""

# Bucket bounds that vLLM 0.32 shows.
_LATENCY = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
_FIRST_TOKEN = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_PER_TOKEN = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0),
)
_TOKENS_PER_STEP = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)

_SOURCES = ("local_compute", "local_cache_hit", "external_kv_transfer")
_CACHE_TIERS = ("device", "host", "p2p", "disk", "external_unspecified")
_FINISH_REASONS = ("stop", "length", "abort", "error", "repetition")

# Counters of features that the stand-in lacks: present, and zero.
_IDLE_COUNTERS = {
    "estimated_flops_per_gpu": "Floating point operations.",
    "estimated_read_bytes_per_gpu": "Bytes read from memory.",
    "estimated_write_bytes_per_gpu": "Bytes written to memory.",
    "prefix_cache_hits": "Tokens found in the prefix cache.",
    "external_prefix_cache_queries": "Tokens looked up in an external cache.",
    "external_prefix_cache_hits": "Tokens found in an external cache.",
    "mm_cache_queries": "Items looked up in the multi-modal cache.",
    "mm_cache_hits": "Items found in the multi-modal cache.",
    "prompt_tokens_cached": "Prompt tokens that were cached.",
}

# Labels of vllm:cache_config_info that a stand-in has no value for; vLLM writes "None" for an unset option.
_UNSET_CACHE_OPTIONS = (
    "_block_size_resolved cache_hit_alignment_tokens effective_attention_block_size "
    "enable_mamba_shared_prefix_checkpoint gpu_memory_utilization hash_block_size is_attention_free "
    "kv_cache_dtype_skip_layers kv_cache_layout kv_cache_max_concurrency kv_cache_memory_bytes "
    "kv_offloading_backend kv_offloading_size kv_sharing_fast_prefill mamba_block_size mamba_cache_dtype "
    "mamba_cache_mode mamba_page_size_padded mamba_ssm_cache_dtype num_cpu_blocks num_gpu_blocks_override "
    "prefix_cache_retention_interval prefix_caching_hash_algo prefix_match_unit replayssm_buffer_len "
    "skip_page_size_padded sliding_window swa_bounded_replay use_kda_recoverssm use_replayssm "
    "user_specified_block_size"
)


def token_buckets(max_model_len: int) -> list[float]:
    """Return vLLM's bucket bounds for token counts: 1, 2, 5, 10, ... up to the context length."""
    bounds: list[float] = []
    decade = 1
    while True:
        for digit in (1, 2, 5):
            if digit * decade > max_model_len:
                return bounds
            bounds.append(float(digit * decade))
        decade *= 10


class EngineMetrics:
    """Counts what the engine does, and reads gauges from its scheduler at each scrape."""

    def __init__(self, model_name: str, limits: Limits, max_model_len: int, *, prefix_caching: bool) -> None:
        self._registry = CollectorRegistry()
        self._model_name = model_name
        self._prefix_caching = prefix_caching
        self._seen_preemptions = 0
        ProcessCollector(registry=self._registry)
        for name, summary in _IDLE_COUNTERS.items():
            self._counter(name, summary)
        self._prefix_queries = self._counter("prefix_cache_queries", "Tokens looked up in the prefix cache.")
        self._preemptions = self._counter("num_preemptions", "Preempted sequences.")
        self._prompt_tokens = self._counter("prompt_tokens", "Prompt tokens processed.")
        self._generation_tokens = self._counter("generation_tokens", "Tokens generated.")
        self._prompt_sources = self._counters("prompt_tokens_by_source", "Prompt tokens.", "source", _SOURCES)
        self._counters("prompt_tokens_cached_by_source", "Cached prompt tokens.", "source", _CACHE_TIERS)
        self._success = self._counters("request_success", "Requests.", "finished_reason", _FINISH_REASONS)
        rejections = Counter(
            "vllm:admission_rejections",
            "Refused requests.",
            ["model_name", "reason"],
            registry=self._registry,
        )
        for reason in ("max_num_queued_reqs", "max_num_queued_tokens"):
            rejections.labels(model_name, reason)
        self._create_histograms(token_buckets(max_model_len))
        self._create_cache_info(limits)

    def watch(self, scheduler: Scheduler) -> None:
        """Read the gauges from this scheduler from now on."""
        waiting = lambda: float(len(scheduler.waiting))  # noqa: E731 - used twice
        self._gauge("num_requests_running", "Requests in the batch.", lambda: float(len(scheduler.running)))
        self._gauge("num_requests_waiting", "Requests in the queue.", waiting)
        self._gauge("kv_cache_usage_perc", "KV cache usage, 1 is full.", lambda: scheduler.kv_cache_usage)
        by_reason = self._labelled_gauge("num_requests_waiting_by_reason", "Requests in the queue.", "reason")
        by_reason.labels(ENGINE, self._model_name, "capacity").set_function(waiting)
        by_reason.labels(ENGINE, self._model_name, "deferred")
        sleep_state = self._labelled_gauge("engine_sleep_state", "Sleep state.", "sleep_state")
        for state in ("awake", "weights_offloaded", "discard_all"):
            sleep_state.labels(ENGINE, self._model_name, state).set(state == "awake")

    def on_step(self, step: Step, result: StepResult, preemptions: int) -> None:
        """Count a completed step; `preemptions` is the scheduler's total so far."""
        prompt_tokens = sum(sequence.prompt_tokens for sequence in result.first_tokens)
        self._preemptions.inc(preemptions - self._seen_preemptions)
        self._seen_preemptions = preemptions
        if prompt_tokens:
            self._prompt_tokens.inc(prompt_tokens)
            self._prompt_sources["local_compute"].inc(prompt_tokens)
            if self._prefix_caching:
                self._prefix_queries.inc(prompt_tokens)
        self._generation_tokens.inc(result.generated)
        if step.chunks:
            self._step_tokens.observe(prompt_tokens + result.generated)
        for sequence in result.first_tokens:
            self._first_token.observe((sequence.first_token_at or 0.0) - sequence.arrival)
        for interval in result.intervals:
            self._inter_token.observe(interval)
        for sequence in result.finished:
            self._on_finished(sequence)

    def on_abort(self) -> None:
        """Count a request that its client gave up."""
        self._success[FinishReason.ABORT].inc()

    def render(self, mode: MetricsMode) -> bytes:
        """Return the text exposition, true or spoilt as the mode says."""
        if mode is MetricsMode.GARBAGE:
            return b'vllm:num_requests_running{engine="0 NaN NaN\n}}}} 12..5e\n\xff\xfe# TYPE\n'
        text = generate_latest(self._registry)
        if mode is MetricsMode.MISSING:
            return b"".join(line for line in text.splitlines(keepends=True) if b"vllm:" not in line)
        if mode is MetricsMode.RENAMED:
            return text.replace(b"vllm:", b"vllm_engine:")
        return text

    def _on_finished(self, sequence: Sequence) -> None:
        scheduled = sequence.scheduled_at or 0.0
        first = sequence.first_token_at or 0.0
        last = sequence.last_token_at or 0.0
        self._success[sequence.finished or FinishReason.ABORT].inc()
        self._prompt_lengths.observe(sequence.prompt_tokens)
        self._computed_lengths.observe(sequence.prompt_tokens)
        self._output_lengths.observe(sequence.generated)
        self._output_maxima.observe(sequence.generated)
        self._asked_maxima.observe(sequence.max_tokens)
        self._asked_choices.observe(1)
        self._request_preemptions.observe(sequence.preemptions)
        self._end_to_end.observe(last - sequence.arrival)
        self._queue.observe(scheduled - sequence.arrival)
        self._inference.observe(last - scheduled)
        self._prefill.observe(first - scheduled)
        self._decode.observe(last - first)
        self._per_token.observe((last - first) / (sequence.generated - 1) if sequence.generated > 1 else 0.0)

    def _create_histograms(self, tokens: list[float]) -> None:
        self._prompt_lengths = self._histogram("request_prompt_tokens", tokens)
        self._output_lengths = self._histogram("request_generation_tokens", tokens)
        self._step_tokens = self._histogram("iteration_tokens_total", _TOKENS_PER_STEP)
        self._output_maxima = self._histogram("request_max_num_generation_tokens", tokens)
        self._asked_choices = self._histogram("request_params_n", (1, 2, 5, 10, 20))
        self._asked_maxima = self._histogram("request_params_max_tokens", tokens)
        self._first_token = self._histogram("time_to_first_token_seconds", _FIRST_TOKEN)
        self._inter_token = self._histogram("inter_token_latency_seconds", _PER_TOKEN)
        self._per_token = self._histogram("request_time_per_output_token_seconds", _PER_TOKEN)
        self._end_to_end = self._histogram("e2e_request_latency_seconds", _LATENCY)
        self._queue = self._histogram("request_queue_time_seconds", _LATENCY)
        self._inference = self._histogram("request_inference_time_seconds", _LATENCY)
        self._prefill = self._histogram("request_prefill_time_seconds", _LATENCY)
        self._decode = self._histogram("request_decode_time_seconds", _LATENCY)
        self._request_preemptions = self._histogram("request_num_preemptions", (1, 2, 3, 4, 5, 10, 20))
        self._computed_lengths = self._histogram("request_prefill_kv_computed_tokens", tokens)

    def _create_cache_info(self, limits: Limits) -> None:
        labels = dict.fromkeys(_UNSET_CACHE_OPTIONS.split(), "None") | {
            "engine": ENGINE,
            "block_size": str(limits.block_size),
            "cache_dtype": "auto",
            "enable_prefix_caching": str(self._prefix_caching),
            "kv_cache_size_tokens": str(limits.blocks * limits.block_size),
            "num_gpu_blocks": str(limits.blocks),
        }
        info = Gauge(
            "vllm:cache_config_info", "Cache configuration.", sorted(labels), registry=self._registry
        )
        info.labels(**labels).set(1)

    def _counter(self, name: str, summary: str) -> Counter:
        family = Counter(f"vllm:{name}", summary, ["engine", "model_name"], registry=self._registry)
        return family.labels(ENGINE, self._model_name)

    def _counters(self, name: str, summary: str, label: str, values: Iterable[str]) -> dict[str, Counter]:
        family = Counter(f"vllm:{name}", summary, ["engine", "model_name", label], registry=self._registry)
        return {value: family.labels(ENGINE, self._model_name, value) for value in values}

    def _gauge(self, name: str, summary: str, read: "Callable[[], float]") -> None:
        family = Gauge(f"vllm:{name}", summary, ["engine", "model_name"], registry=self._registry)
        family.labels(ENGINE, self._model_name).set_function(read)

    def _labelled_gauge(self, name: str, summary: str, label: str) -> Gauge:
        return Gauge(f"vllm:{name}", summary, ["engine", "model_name", label], registry=self._registry)

    def _histogram(self, name: str, buckets: Iterable[float]) -> Histogram:
        family = Histogram(
            f"vllm:{name}",
            f"Histogram of {name}.",
            ["engine", "model_name"],
            buckets=tuple(buckets),
            registry=self._registry,
        )
        return family.labels(ENGINE, self._model_name)
