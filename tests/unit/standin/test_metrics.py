"""The metrics against a capture of vLLM 0.32's, and against what was served."""

import asyncio
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dev.standin.metrics import EngineMetrics
from dev.standin.scheduler import FinishReason, Limits, Scheduler, Sequence
from dev.standin.settings import MetricsMode
from modelyard.core.enginemetrics import parse_engine
from modelyard.core.load import Objective
from modelyard.core.servicequality import count_missed
from tests.unit.standin.helpers import FakeClock, Launch

FIXTURE = Path(__file__).parents[2] / "fixtures" / "vllm-0.32-metrics.txt"

# What an autoscaler reads of vLLM.
READ_BY_THE_OPERATOR = {
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:num_preemptions_total",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:request_success_total",
    "vllm:time_to_first_token_seconds_bucket",
    "vllm:inter_token_latency_seconds_bucket",
    "vllm:request_time_per_output_token_seconds_bucket",
    "vllm:e2e_request_latency_seconds_bucket",
    "vllm:request_queue_time_seconds_bucket",
    "vllm:cache_config_info",
}

CHAT = {"model": "m", "messages": [{"role": "user", "content": "x" * 400}]}


def describe(text: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Return type and label names by sample name, of vLLM's metrics."""
    return {
        sample.name: (family.type, frozenset(sample.labels))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("vllm:")
    }


def label_values(text: str, label: str) -> dict[str, set[str]]:
    """Return the values of a label by sample name."""
    values: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if label in sample.labels and sample.name.startswith("vllm:"):
                values.setdefault(sample.name, set()).add(sample.labels[label])
    return values


async def test_names_types_and_labels_are_those_of_vllm(launch: Launch) -> None:
    running = await launch("--max-model-len", "1024")
    ours = await (await running.client.get("/metrics")).text()
    vllms = FIXTURE.read_text()
    assert describe(ours) == describe(vllms)
    assert len(describe(vllms)) > 80
    for label in ("le", "reason", "source", "finished_reason", "sleep_state", "engine"):
        assert label_values(ours, label) == label_values(vllms, label)


def test_the_capture_holds_what_the_operator_reads() -> None:
    assert describe(FIXTURE.read_text()).keys() >= READ_BY_THE_OPERATOR


async def test_counters_and_histograms_follow_the_requests(launch: Launch) -> None:
    running = await launch(profile="l4-8b", clock=FakeClock())
    for tokens in (5, 7):
        response = await running.client.post("/v1/chat/completions", json=CHAT | {"max_tokens": tokens})
        assert response.status == 200
    assert await running.metric("vllm:prompt_tokens_total") == 200
    assert await running.metric("vllm:generation_tokens_total") == 12
    assert await running.metric("vllm:request_success_total", 'finished_reason="length"') == 2
    assert await running.metric("vllm:time_to_first_token_seconds_count") == 2
    assert await running.metric("vllm:inter_token_latency_seconds_count") == 10
    assert await running.metric("vllm:iteration_tokens_total_sum") == 212
    assert await running.metric("vllm:iteration_tokens_total_count") == 12
    assert await running.metric("vllm:request_params_max_tokens_sum") == 12
    first_token = (26.8 + 0.1 + 100 * 0.147) / 1000
    assert await running.metric("vllm:time_to_first_token_seconds_sum") == pytest.approx(2 * first_token)
    whole = await running.metric("vllm:e2e_request_latency_seconds_sum")
    parts = [await running.metric(f"vllm:request_{part}_time_seconds_sum") for part in ("prefill", "decode")]
    assert whole == pytest.approx(sum(parts))
    assert await running.metric("vllm:num_requests_running") == 0


async def test_the_operator_counts_what_missed_the_objective(launch: Launch) -> None:
    running = await launch(profile="l4-8b", clock=FakeClock())
    pages = [await (await running.client.get("/metrics")).text()]
    for tokens in (5, 7):
        response = await running.client.post("/v1/chat/completions", json=CHAT | {"max_tokens": tokens})
        assert response.status == 200
    pages.append(await (await running.client.get("/metrics")).text())
    before, after = (parse_engine("vLLM", page, float(time)) for time, page in enumerate(pages))
    # First tokens come after 42 ms, the others every 27 ms.
    assert count_missed(before, after, Objective(0.06, 0.05)) == (2, 0, 0)
    assert count_missed(before, after, Objective(0.04, 0.05)) == (2, 2, 0)
    assert count_missed(before, after, Objective(0.06, 0.025)) == (2, 2, 0)


def test_gauges_show_the_batch_the_queue_and_the_cache() -> None:
    limits = Limits(kv_cache_tokens=1600, max_num_seqs=2, max_num_batched_tokens=2048)
    metrics = EngineMetrics("m", limits, 1024, prefix_caching=True)
    scheduler = Scheduler(limits)
    metrics.watch(scheduler)
    for _ in range(5):
        scheduler.add(Sequence(320, 100, 100, FinishReason.LENGTH, arrival=0.0))
    scheduler.plan(0.0)
    text = metrics.render(MetricsMode.TRUE).decode()
    values = {
        line.partition("{")[0]: float(line.rpartition(" ")[2])
        for line in text.splitlines()[1:]
        if line[0] != "#"
    }
    assert values["vllm:num_requests_running"] == 2
    assert values["vllm:num_requests_waiting"] == 3
    assert values["vllm:kv_cache_usage_perc"] == pytest.approx(0.4)


async def test_preemptions_are_counted(launch: Launch) -> None:
    running = await launch("--max-model-len", "64", kv_cache_tokens=64)
    generations = [running.standin.engine.submit(31, 20, 20, FinishReason.LENGTH) for _ in range(2)]
    async with asyncio.timeout(20):
        for generation in generations:
            assert await generation.wait_for(20) == 20
    assert await running.metric("vllm:num_preemptions_total") == 1
    assert await running.metric("vllm:request_num_preemptions_sum") == 1
    assert await running.metric("vllm:generation_tokens_total") == 40
    assert await running.metric("vllm:prompt_tokens_total") == 62
