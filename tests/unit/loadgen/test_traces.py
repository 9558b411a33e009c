"""The trace that comes with the repository, and files that are no trace."""

import gzip
from pathlib import Path

import pytest

from dev.traces import CONVERSATION_2023, Arrival, read_trace, select_window
from dev.traces.azure import TraceError


@pytest.fixture(scope="module")
def arrivals() -> list[Arrival]:
    return read_trace(CONVERSATION_2023)


def test_the_committed_trace_is_whole(arrivals: list[Arrival]) -> None:
    assert len(arrivals) == 19_366
    assert arrivals[0] == Arrival(0.0, 374, 44)
    assert arrivals[1].at_s == pytest.approx(4.314579)
    assert arrivals == sorted(arrivals)
    mean_prompt = sum(arrival.prompt_tokens for arrival in arrivals) / len(arrivals)
    mean_output = sum(arrival.output_tokens for arrival in arrivals) / len(arrivals)
    assert round(mean_prompt) == 1155
    assert round(mean_output) == 211


def test_a_window_is_timed_from_its_start_and_excludes_its_end() -> None:
    arrivals = [Arrival(at_s, 1, 1) for at_s in (9.0, 10.0, 19.5, 20.0)]
    assert [arrival.at_s for arrival in select_window(arrivals, 10, 10)] == [0.0, 9.5]


def test_consecutive_windows_hold_every_arrival_once(arrivals: list[Arrival]) -> None:
    windows = [select_window(arrivals, start, 600) for start in range(0, 3600, 600)]
    assert sum(map(len, windows)) == len(arrivals)


def test_an_uncompressed_file_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:00:02.5000000,20,4\n"
        "2023-11-16 18:00:00.0000000,10,2\n"
    )
    assert read_trace(path) == [Arrival(0.0, 10, 2), Arrival(2.5, 20, 4)]


@pytest.mark.parametrize(
    "text",
    [
        "time,prompt,answer\n1,2,3\n",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:00:00.0000000,many,2\n",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:00:00.0000000,10\n",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n",
    ],
)
def test_what_is_no_trace_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.csv"
    path.write_text(text)
    with pytest.raises(TraceError, match=r"other\.csv"):
        read_trace(path)


def test_a_file_that_is_not_gzip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv.gz"
    path.write_bytes(b"TIMESTAMP")
    with pytest.raises(TraceError, match=r"trace\.csv\.gz"):
        read_trace(path)
    path.write_bytes(gzip.compress(b"TIMESTAMP,ContextTokens,GeneratedTokens\n")[:-4])
    with pytest.raises((TraceError, EOFError)):
        read_trace(path)
