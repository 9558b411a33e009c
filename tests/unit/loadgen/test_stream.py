"""Only a complete stream with exact usage counts as an answer."""

import json

import pytest

from dev.loadgen.stream import TAIL_BYTES, StreamError, StreamTail


def event(data: object) -> bytes:
    return b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + b"\n\n"


TOKEN = event({"choices": [{"text": "word "}]})
USAGE = event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}})
DONE = event(b"[DONE]")


def read(data: bytes, chunk: int) -> tuple[int, int]:
    tail = StreamTail()
    for start in range(0, len(data), chunk):
        tail.feed(data[start : start + chunk])
    return tail.usage()


@pytest.mark.parametrize("chunk", [1, 7, 100, 10_000_000])
@pytest.mark.parametrize("tokens", [1, 2, 5000])
def test_usage_is_found_however_the_stream_is_cut(chunk: int, tokens: int) -> None:
    data = TOKEN * tokens + USAGE + DONE
    assert read(data, chunk if tokens < 5000 else max(chunk, 100)) == (3, 5)


def test_memory_is_bounded() -> None:
    tail = StreamTail()
    for _ in range(100):
        tail.feed(TOKEN * 1000)
        assert len(tail._tail) <= 2 * TAIL_BYTES
    tail.feed(USAGE + DONE)
    assert tail.usage() == (3, 5)


def test_usage_of_null_in_earlier_events_is_no_usage() -> None:
    null = event({"choices": [{"text": "word "}], "usage": None})
    assert read(null * 3 + USAGE + DONE, 50) == (3, 5)
    with pytest.raises(StreamError, match="no usage"):
        read(null * 3 + DONE, 50)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "DONE"),
        (TOKEN, "DONE"),
        (TOKEN + USAGE, "DONE"),
        (TOKEN + DONE, "no usage"),
        (TOKEN + event({"error": {"message": "out of memory"}}) + DONE, "out of memory"),
        (TOKEN + event({"error": {"message": "out of memory"}}), "out of memory"),
        (b"<html>bad gateway</html>", "DONE"),
        (event(b"nonsense") + DONE, "no usage"),
    ],
)
def test_anything_else_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(StreamError, match=reason):
        read(data, 50)
