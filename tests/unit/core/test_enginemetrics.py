import math
import time
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from modelyard.core.enginemetrics import (
    ENGINE_BUCKETS,
    ENGINE_SERIES,
    FEWEST_REQUESTS,
    FEWEST_TOKENS,
    METRICS_PATH,
    UnreadablePageError,
    compare_readings,
    has_restarted,
    parse_engine,
)
from tests.unit.core.enginepages import CREATED, FIXTURE, Engine, fill_buckets, make_page

NOW = 1_800_000_000.0


def read(page, now=NOW):
    return parse_engine("vLLM", page, now)


def compare(before, after, warm=600.0):
    return compare_readings(before, after, warm)


def watch(engine, seconds=60.0):
    before = read(engine.page())
    engine.work(seconds)
    return before, read(engine.page(), NOW + seconds)


def test_the_page_of_a_real_engine_is_read():
    reading = read(FIXTURE)
    assert (reading.engines, reading.running, reading.waiting) == (1, 0, 0)
    assert (reading.inter_tokens, reading.inter_token_seconds) == (15, 0.04463402400006089)
    assert (reading.first_tokens, reading.first_token_seconds) == (1, 0.024988412857055664)
    assert (reading.input_tokens, reading.output_tokens, reading.finished) == (20, 16, 1)
    assert (reading.steps, reading.cache_queries, reading.cache_hits) == (16, 20, 0)
    assert reading.queue_seconds == 4.291400000511203e-05
    assert reading.created == reading.started == 1.7955001018045077e09
    assert reading.time == NOW


def test_it_reads_what_the_full_parser_reads():
    full = {
        sample.name.removesuffix("_total"): sample.value
        for family in text_string_to_metric_families(FIXTURE)
        for sample in family.samples
        if "le" not in sample.labels
    }
    reading = read(FIXTURE)
    for series, name in ENGINE_SERIES["vLLM"].items():
        assert getattr(reading, name) == full[series], series


def test_it_reads_the_buckets_that_the_full_parser_reads():
    full = {
        family.name: tuple(
            sorted(
                (float(sample.labels["le"]), sample.value)
                for sample in family.samples
                if sample.name.endswith("_bucket")
            )
        )
        for family in text_string_to_metric_families(FIXTURE)
    }
    reading = read(FIXTURE)
    for series, name in ENGINE_BUCKETS["vLLM"].items():
        assert getattr(reading, name) == full[series.removesuffix("_bucket")], series
    assert reading.first_token_buckets[3:5] == ((0.02, 0.0), (0.04, 1.0))


def test_buckets_of_engines_of_one_pod_are_summed():
    reading = read(FIXTURE + make_page(engine="1"))
    assert reading.first_token_buckets[-1] == (math.inf, 2.0)
    assert len(reading.first_token_buckets) == 23
    assert len(reading.answer_pace_buckets) == 20


def test_a_label_that_looks_like_an_edge_is_none():
    page = FIXTURE.replace('model_name="tiny"', r'model_name="a,le=\"7\",b"').replace(
        'engine="0"', 'a="{le=7"'
    )
    assert read(page).first_token_buckets == read(FIXTURE).first_token_buckets


def test_a_page_without_buckets_is_read():
    page = "\n".join(line for line in FIXTURE.splitlines() if "_bucket" not in line)
    assert read(page).first_token_buckets == read(page).answer_pace_buckets == ()


def test_engines_of_one_pod_are_summed():
    one = Engine(batch=8, inter_token=0.02)
    one.work(100)
    both = one.page() + make_page(engine="1")
    reading = read(both)
    assert (reading.engines, reading.running) == (2, 8)
    assert reading.inter_tokens == pytest.approx(100 / 0.02 * 8 + 15)
    assert reading.started == CREATED


def test_counters_may_lack_their_suffix_and_samples_may_carry_a_time():
    reading = read(
        FIXTURE.replace("vllm:prefix_cache_queries_total{", "vllm:prefix_cache_queries{").replace(
            'vllm:num_requests_running{engine="0",model_name="tiny"} 0.0',
            'vllm:num_requests_running{engine="0",model_name="a } b"} 3.0 1795500101000',
        )
    )
    assert reading.cache_queries == 20
    assert reading.running == 3


@pytest.mark.parametrize(
    "page",
    [
        "",
        "<html>not found</html>",
        'vllm:num_requests_running{engine="0 NaN NaN\n}}}} 12..5e\n',
        FIXTURE.replace("vllm:", "vllm_engine:"),
        FIXTURE.replace("vllm:inter_token_latency_seconds_sum", "vllm:itl_sum"),
        make_page(num_requests_waiting=float("nan")),
        make_page(inter_token_latency_seconds_sum=float("inf")),
        make_page(request_generation_tokens_count=-1.0),
        FIXTURE.replace('time_to_first_token_seconds_bucket{engine="0",le="+Inf"', 'other{engine="0"'),
        FIXTURE.replace('le="0.04"', 'le="fast"'),
        FIXTURE.replace('le="0.04"', 'le="NaN"'),
        FIXTURE.replace('le="0.04"', 'le="-1"'),
        FIXTURE.replace('le="0.04"', 'le="5e-324"'),
        FIXTURE.replace('le="2560.0"', 'le="1e308"'),
        make_page(request_generation_tokens_count=1e308) * 2,
        fill_buckets(FIXTURE, "time_to_first_token_seconds", lambda edge: 1.0, 1e308) * 2,
        FIXTURE.replace(',le="0.04"', ""),
        fill_buckets(FIXTURE, "time_to_first_token_seconds", lambda edge: math.nan, 1.0),
        FIXTURE.replace(
            'vllm:num_requests_running{engine="0",model_name="tiny"} 0.0', "vllm:num_requests_running 0x1"
        ),
    ],
)
def test_a_page_of_anything_else_is_refused(page):
    with pytest.raises(UnreadablePageError):
        read(page)


@pytest.mark.parametrize(
    "page",
    [
        'vllm:num_requests_running{engine="' + "}" * 2**20,
        "vllm:time_to_first_token_seconds_bucket{" + 'le="1",' * 2**17,
        'vllm:time_to_first_token_seconds_bucket{le="' + ",le=" * 2**17 + "} 1",
    ],
)
def test_a_huge_line_does_not_take_long(page):
    started = time.process_time()
    with pytest.raises(UnreadablePageError):
        read(page)
    assert time.process_time() - started < 1.0


def test_llama_cpp_is_not_learned_from():
    assert ENGINE_SERIES.keys() == ENGINE_BUCKETS.keys() == METRICS_PATH.keys() == {"vLLM"}


def test_the_difference_of_two_readings_is_what_the_engine_did():
    engine = Engine(
        batch=12, inter_token=0.03, first_token=0.4, input_tokens=900, output_tokens=150, cached=0.25
    )
    engine.work(5000)
    observation = compare(*watch(engine), warm=321.0)
    assert observation.time == NOW + 60
    assert observation.warm_seconds == 321.0
    assert observation.batch == pytest.approx(12)
    assert observation.inter_token_latency == pytest.approx(0.03)
    assert observation.time_to_first_token == pytest.approx(0.4)
    assert observation.input_tokens == pytest.approx(900)
    assert observation.output_tokens == pytest.approx(150)
    assert observation.cached_share == pytest.approx(0.25)
    assert observation.restarts == 0


def test_the_batch_of_an_engine_that_idles_is_that_of_its_working_time():
    engine = Engine(batch=8, inter_token=0.02)
    before = read(engine.page())
    engine.work(60)
    # Another minute passes in which it has nothing to do.
    assert compare(before, read(engine.page(), NOW + 120)).batch == pytest.approx(8)


def test_steps_that_only_prefill_do_not_make_the_batch_smaller():
    before, after = watch(Engine(batch=8, inter_token=0.02))
    assert compare(before, replace(after, steps=2 * after.steps)).batch == pytest.approx(8)


def test_the_batch_needs_no_count_of_steps():
    before, after = watch(Engine(batch=8, inter_token=0.02))
    assert compare(before, replace(after, steps=0.0)).batch == pytest.approx(8)


def test_the_batch_is_that_of_one_engine():
    before, after = watch(Engine(batch=8, inter_token=0.02))
    counts = ("inter_token_seconds", "inter_tokens", "steps")
    both = replace(after, engines=2, **{name: 2 * getattr(after, name) for name in counts})
    assert compare(replace(before, engines=2), both).batch == pytest.approx(8)


def test_too_little_work_is_no_observation():
    engine = Engine(batch=1, inter_token=0.01, output_tokens=2.0)
    enough = FEWEST_TOKENS * 0.01
    assert compare(*watch(engine, 0.99 * enough)) is None
    assert compare(*watch(engine, 1.01 * enough)) is not None


def test_too_few_requests_are_no_observation():
    engine = Engine(batch=1, inter_token=0.01, output_tokens=100.0)
    enough = FEWEST_REQUESTS * 100 * 0.01
    assert compare(*watch(engine, 0.99 * enough)) is None
    assert compare(*watch(engine, 1.01 * enough)) is not None


def test_a_clock_that_went_back_is_no_observation():
    before, after = watch(Engine(batch=8, inter_token=0.02))
    assert compare(before, replace(after, time=before.time)) is None


def test_the_first_token_of_requests_that_queued_is_not_learned_from():
    queued = Engine(batch=8, inter_token=0.02, first_token=0.5, queued=0.3)
    assert compare(*watch(queued)).time_to_first_token is None
    scheduled_next = Engine(batch=8, inter_token=0.02, first_token=0.5, queued=0.03)
    assert compare(*watch(scheduled_next)).time_to_first_token == pytest.approx(0.5)


@pytest.mark.parametrize("index", [0, 1])
def test_a_queue_at_either_end_leaves_the_first_token_out(index):
    readings = list(watch(Engine(batch=8, inter_token=0.02)))
    readings[index] = replace(readings[index], waiting=1.0)
    assert compare(*readings).time_to_first_token is None


def test_a_restart_shows_in_counts_in_their_start_and_in_the_number_of_engines():
    before, after = watch(Engine(batch=8, inter_token=0.02))
    assert not has_restarted(before, after)
    assert has_restarted(before, replace(after, first_tokens=before.first_tokens - 1))
    assert has_restarted(before, replace(after, created=before.created + 5))
    assert has_restarted(before, replace(after, engines=2))
    other = replace(after, first_token_buckets=after.first_token_buckets[1:])
    assert has_restarted(before, other)
    fallen = ((0.001, -1.0), *after.first_token_buckets[1:])
    assert has_restarted(before, replace(after, first_token_buckets=fallen))
    # Gauges go up and down.
    assert not has_restarted(replace(before, running=9.0, waiting=9.0), after)


def test_a_page_without_start_times_is_read():
    page = "\n".join(line for line in FIXTURE.splitlines() if "_created" not in line)
    assert read(page).started == 0
