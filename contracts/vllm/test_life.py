"""A server that runs with what is rendered: ready when it says so, counted, read, drained."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from contracts.vllm.conftest import WORKLOADS
from dev.vllm.record import LONG_TOKENS, REQUESTS
from modelyard.core.enginemetrics import ENGINE_BUCKETS, ENGINE_SERIES, compare_readings, parse_engine

STREAMS = [name for name, (_, body) in REQUESTS.items() if body.get("stream_options")]
SILENT = "chat stream, usage not asked for"
ANSWERED = ("completion", "chat", *STREAMS, SILENT)
TOKENS = 5
"""Output tokens of each answered request."""


@pytest.fixture(params=WORKLOADS)
def name(request):
    return request.param


def test_it_is_ready_when_the_probe_says_so(live, name):
    record = live(name)
    assert record.health == ["refused", "200"]
    assert record.first == 200


def test_requests_are_answered(live, name):
    answers = live(name).answers
    assert {key: answers[key].status for key in ANSWERED} == dict.fromkeys(ANSWERED, 200)
    assert (answers["unknown model"].status, answers["too long"].status) == (404, 400)
    for adapter, _ in WORKLOADS[name].adapters:
        assert answers[adapter].status == 200
        assert answers[adapter].objects[0]["model"] == adapter


def test_the_models_are_those_of_the_deployment(live, name):
    cards = live(name).models.objects[0]["data"]
    adapters = [adapter for adapter, _ in WORKLOADS[name].adapters]
    assert [card["id"] for card in cards] == ["tiny", *adapters]
    assert cards[0]["max_model_len"] == (WORKLOADS[name].context_length or 1024)


@pytest.mark.parametrize("stream", STREAMS)
def test_a_stream_ends_with_the_usage_that_was_asked_for(live, name, stream):
    answer = live(name).answers[stream]
    assert answer.ended
    *events, last = answer.objects
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == TOKENS
    assert (
        last["usage"]["prompt_tokens"]
        == live(name).answers[stream.split()[0]].objects[0]["usage"]["prompt_tokens"]
    )
    assert not any("usage" in event for event in events)


def test_a_stream_tells_no_usage_unasked(live, name):
    answer = live(name).answers[SILENT]
    assert answer.ended
    assert not any("usage" in event for event in answer.objects)
    assert all(len(event["choices"]) == 1 for event in answer.objects)


def test_usage_says_how_much_of_the_prompt_was_cached(live, name):
    for key in ("completion", "chat", *STREAMS):
        usage = live(name).answers[key].objects[-1]["usage"]
        assert 0 <= usage["prompt_tokens_details"]["cached_tokens"] < usage["prompt_tokens"], key


def test_every_series_that_is_read_is_there_after_one_request(live, name):
    page = live(name).metrics_before
    labels = {
        sample.name: sample.labels
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    for series in (*ENGINE_SERIES["vLLM"], *ENGINE_BUCKETS["vLLM"]):
        found = labels.get(series) or labels.get(f"{series}_total")
        assert found is not None, series
        assert (found["engine"], found["model_name"]) == ("0", "tiny")
    reading = parse_engine("vLLM", page, 0.0)
    assert (reading.engines, reading.first_tokens, reading.finished, reading.output_tokens) == (
        1,
        1,
        1,
        TOKENS,
    )
    assert reading.inter_tokens == TOKENS - 1
    assert min(reading.input_tokens, reading.first_token_seconds, reading.inter_token_seconds) > 0
    assert min(reading.steps, reading.created, reading.answer_pace_seconds) > 0
    assert reading.first_token_buckets[-1][1] == reading.answer_pace_buckets[-1][1] == 1
    assert (reading.running, reading.waiting) == (0, 0)


def test_the_counts_follow_the_requests(live, name):
    record = live(name)
    before, after = (
        parse_engine("vLLM", page, float(at))
        for at, page in enumerate((record.metrics_before, record.metrics))
    )
    answered = len(ANSWERED) + len(WORKLOADS[name].adapters)
    assert after.finished - before.finished == answered
    assert after.output_tokens - before.output_tokens == answered * TOKENS
    prompts = [
        record.answers["chat" if key == SILENT else key].objects[-1]["usage"]["prompt_tokens"]
        for key, answer in record.answers.items()
        if answer.status == 200
    ]
    assert after.input_tokens - before.input_tokens == sum(prompts)
    # Too little to learn from, but a pair that can be compared.
    assert compare_readings(before, after, 0.0) is None


def test_sigterm_lets_a_stream_end_and_takes_nothing_new(live, name):
    record = live(name)
    assert record.drained.ended
    usage = record.drained.objects[-1]["usage"]
    assert usage["completion_tokens"] == LONG_TOKENS
    # vLLM goes on accepting connections while it drains, and answers 500.
    assert record.late[-1] in {"500", "503", "refused"}
    assert record.exit_code == 0
    assert record.exit_seconds < WORKLOADS[name].drain_seconds
