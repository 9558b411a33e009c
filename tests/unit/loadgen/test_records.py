"""What a run is summed up to."""

import json
from pathlib import Path

import pytest

from dev.loadgen.records import HELD_AFTER_S, Percentiles, RequestRecord, summarise, write_records


def answered(
    index: int, *, sent_s: float, headers_after_s: float = 0.01, first_after_s: float = 0.5
) -> RequestRecord:
    return RequestRecord(
        index,
        scheduled_s=sent_s,
        prompt_tokens=10,
        output_tokens=5,
        sent_s=sent_s + 0.001,
        headers_s=sent_s + 0.001 + headers_after_s,
        first_byte_s=sent_s + 0.001 + first_after_s,
        done_s=sent_s + 0.001 + first_after_s + 0.4,
        status=200,
        counted_prompt_tokens=10,
        counted_output_tokens=5,
    )


def test_counts_tokens_and_latencies() -> None:
    records = [answered(index, sent_s=float(index)) for index in range(100)]
    summary = summarise(records)
    assert (summary.sent, summary.answered, summary.lost, summary.held) == (100, 100, 0, 0)
    assert (summary.prompt_tokens, summary.output_tokens) == (1000, 500)
    assert summary.time_to_first_token_ms == Percentiles(500.0, 500.0, 500.0)
    # 0.4 s for the four tokens after the first.
    assert summary.inter_token_ms == Percentiles(100.0, 100.0, 100.0)
    assert summary.lateness_ms == Percentiles(1.0, 1.0, 1.0)
    assert summary.duration_s == pytest.approx(99.901)


def test_percentiles_are_nearest_ranks() -> None:
    records = [answered(index, sent_s=0.0, first_after_s=(index + 1) / 1000) for index in range(200)]
    assert summarise(records).time_to_first_token_ms == Percentiles(100.0, 180.0, 198.0)


def test_a_request_that_no_engine_took_for_long_was_held() -> None:
    records = [
        answered(0, sent_s=0.0, headers_after_s=HELD_AFTER_S * 2, first_after_s=HELD_AFTER_S * 2),
        answered(1, sent_s=0.0, headers_after_s=0.01, first_after_s=HELD_AFTER_S * 2),
    ]
    assert summarise(records).held == 1


def test_every_request_that_is_not_answered_is_lost() -> None:
    failed = answered(1, sent_s=1.0)
    failed.error = "HTTP 503: busy"
    refused = RequestRecord(2, 2.0, 10, 5, sent_s=2.0, error="HTTP 503: busy")
    unfinished = RequestRecord(3, 3.0, 10, 5, sent_s=3.0)
    unsent = RequestRecord(4, 4.0, 10, 5)
    summary = summarise([answered(0, sent_s=0.0), failed, refused, unfinished, unsent])
    assert (summary.sent, summary.answered, summary.lost) == (4, 1, 4)
    assert summary.losses == {"HTTP 503: busy": 2, "unfinished": 2}
    assert summary.output_tokens == 5


def test_a_run_without_requests_has_a_summary() -> None:
    summary = summarise([])
    assert (summary.sent, summary.lost) == (0, 0)
    assert summary.time_to_first_token_ms is None


def test_records_are_written_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "new" / "records.jsonl"
    write_records([answered(0, sent_s=0.0), answered(1, sent_s=1.0)], path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["index"] for line in lines] == [0, 1]
    assert lines[0]["counted_output_tokens"] == 5
