"""Reads the Azure LLM inference trace 2023 (see README.md for source and licence)."""

import csv
import gzip
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

CONVERSATION_2023 = Path(__file__).resolve().parent / "azure-2023-conversation.csv.gz"
"""The trace that comes with the repository."""

_MICROSECOND_LENGTH = len("2023-11-16 18:15:46.680590")
"""The trace writes seven decimals of a second, one more than Python's datetime reads."""


class TraceError(ValueError):
    """The file is no trace of this form; the message names the file and what is wrong."""


@dataclass(frozen=True, slots=True, order=True)
class Arrival:
    """One recorded request."""

    at_s: float
    """Seconds since the first arrival of the trace, or since the start of a selected window."""
    prompt_tokens: int
    output_tokens: int


def read_trace(path: Path = CONVERSATION_2023) -> list[Arrival]:
    """Return all arrivals in order; the file may be gzipped.

    Raises TraceError if the columns are not those of the Azure trace or a row cannot be read.
    """
    try:
        with _open_text(path) as file:
            rows = csv.DictReader(file)
            recorded = [
                (
                    datetime.fromisoformat(row["TIMESTAMP"][:_MICROSECOND_LENGTH]),
                    int(row["ContextTokens"]),
                    int(row["GeneratedTokens"]),
                )
                for row in rows
            ]
    except (KeyError, ValueError, TypeError, gzip.BadGzipFile) as error:
        raise TraceError(
            f"{path} is not an Azure trace: it needs the columns TIMESTAMP, ContextTokens and "
            f"GeneratedTokens ({error})"
        ) from error
    if not recorded:
        raise TraceError(f"{path} holds no requests")
    recorded.sort()
    first = recorded[0][0]
    return [Arrival((time - first).total_seconds(), prompt, output) for time, prompt, output in recorded]


def select_window(arrivals: Iterable[Arrival], start_s: float, duration_s: float) -> list[Arrival]:
    """Return the arrivals of `[start, start + duration)`, timed from the window's start."""
    return [
        Arrival(arrival.at_s - start_s, arrival.prompt_tokens, arrival.output_tokens)
        for arrival in arrivals
        if start_s <= arrival.at_s < start_s + duration_s
    ]


def _open_text(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")
