"""Reads recorded arrivals: own CSV and JSON lines, Azure, BurstGPT and Mooncake. The columns tell which it is."""

import math
from array import array
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.simulator.prefixblocks import PrefixBlocks
from modelyard.simulator.scenario import Arrivals, Floats, Integers
from modelyard.simulator.tracefiles import Row, TraceError, read_rows

MAX_REQUESTS = 50_000_000
"""Requests of one file: 44 million are a week of the Azure 2024 trace. More is taken for a damaged file."""
MAX_TOKENS = 10_000_000
"""Tokens of one request: the longest context on offer (Llama 4 Scout's model card)."""
MAX_DURATION = 366 * 86_400.0
"""Seconds. A longer trace is taken for times in the wrong unit."""
MOONCAKE_BLOCK = 512
"""Tokens that one of Mooncake's hash_ids stands for (FAST25-release/README.md in github.com/kvcache-ai/Mooncake)."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """Names of the columns of one kind of trace."""

    kind: str
    time: str
    input: str
    output: str
    cached: str | None = None
    blocks: str | None = None
    unit: float = 1.0
    """Seconds that one unit of a numeric time stands for."""
    absolute: bool = True
    """A numeric time is a moment, and the first request comes at 0; otherwise it counts from the trace's start."""
    drops_failures: bool = False
    """A row without output tokens is a failed request that the source keeps, and no error."""


_LAYOUTS = (
    _Layout("modelyard", "time", "input_tokens", "output_tokens", cached="cached_tokens", absolute=False),
    _Layout("modelyard", "timestamp", "input_tokens", "output_tokens", cached="cached_tokens"),
    # github.com/Azure/AzurePublicDataset, AzureLLMInferenceDataset2023.md and ...2024.md.
    _Layout("Azure", "TIMESTAMP", "ContextTokens", "GeneratedTokens"),
    # github.com/HPMLL/BurstGPT, README.md: seconds; failures have 0 response tokens.
    _Layout("BurstGPT", "Timestamp", "Request tokens", "Response tokens", drops_failures=True),
    # github.com/kvcache-ai/Mooncake, FAST25-release/README.md: milliseconds.
    _Layout(
        "Mooncake",
        "timestamp",
        "input_length",
        "output_length",
        blocks="hash_ids",
        unit=1e-3,
        absolute=False,
    ),
)


def read_trace(
    path: Path, *, name: str = "", cache_blocks: int | None = None, max_requests: int = MAX_REQUESTS
) -> Arrivals:
    """Return the requests of a file, sorted by time.

    CSV with a header or one JSON object a line, gzipped or not. Columns: `time` (seconds from the start) or
    `timestamp` (Unix seconds), either as ISO 8601 too (UTC unless it says otherwise); `input_tokens`,
    `output_tokens` and, if known, `cached_tokens`. Or those of Azure, BurstGPT and Mooncake. Further columns are
    left alone. An empty `cached_tokens` is 0, and as the last token of a prompt is always computed, no more than
    one below its input.

    Mooncake: cached tokens are those that a cache of `cache_blocks` blocks of 512 tokens would hold, the least
    recently used leaving first, shared by all replicas (None: without limit).

    The duration runs one mean gap beyond the last request, so that requests over duration is their mean rate.
    Raises TraceError that names the line and the column.
    """
    rows = _Rows(path, max_requests)
    for number, row in read_rows(path):
        rows.add(number, row)
    return rows.arrivals(name or path.name.removesuffix(".gz").rsplit(".", 1)[0], cache_blocks)


class _Rows:
    """Collects the rows of one file in arrays, 8 bytes a number."""

    def __init__(self, path: Path, max_requests: int) -> None:
        self._path = path
        self._max_requests = max_requests
        self._layout: _Layout | None = None
        self._dated: bool | None = None
        self._time = array("d")
        self._input = array("q")
        self._output = array("q")
        self._cached = array("q")
        self._blocks: list[Sequence[Hashable]] = []

    def add(self, number: int, row: Row) -> None:
        layout = self._layout = self._layout or self._layout_of(row)
        if len(self._time) >= self._max_requests:
            raise TraceError(f"{self._path}, line {number}: more than {self._max_requests} requests")
        output = self._tokens(number, row, layout.output, least=0 if layout.drops_failures else 1)
        if output == 0:
            return
        self._time.append(self._seconds(number, row, layout))
        self._input.append(self._tokens(number, row, layout.input, least=1))
        self._output.append(output)
        self._cached.append(self._cached_tokens(number, row, layout.cached))
        if layout.blocks is not None:
            self._blocks.append(self._block_list(number, row, layout.blocks))

    def arrivals(self, name: str, cache_blocks: int | None) -> Arrivals:
        if not self._time:
            raise TraceError(f"{self._path} holds no requests")
        time = np.frombuffer(self._time, dtype=np.float64)
        order = np.argsort(time, kind="stable")
        time = time[order]
        if self._dated or (self._layout is not None and self._layout.absolute):
            time = time - time[0]
        if time[-1] > MAX_DURATION:
            raise TraceError(
                f"{self._path} covers {time[-1]:.3g} s, more than a year: is its time in seconds, and is a Unix time "
                "in a column named timestamp?"
            )
        input_tokens = np.frombuffer(self._input, dtype=np.int64)[order]
        return Arrivals(
            time=time,
            input_tokens=input_tokens,
            output_tokens=np.frombuffer(self._output, dtype=np.int64)[order],
            cached_tokens=np.minimum(self._cached_in_order(order, cache_blocks), input_tokens - 1),
            duration=_duration(time),
            name=name,
        )

    def _cached_in_order(self, order: Integers, cache_blocks: int | None) -> Integers:
        if not self._blocks:
            return np.frombuffer(self._cached, dtype=np.int64)[order]
        cache = PrefixBlocks(cache_blocks)
        hits = [cache.admit(self._blocks[index]) for index in order]
        return np.array(hits, dtype=np.int64) * MOONCAKE_BLOCK

    def _layout_of(self, row: Row) -> _Layout:
        for layout in _LAYOUTS:
            if {layout.time, layout.input, layout.output} <= row.keys():
                return layout
        known = "; ".join(
            f"{layout.time}, {layout.input}, {layout.output} ({layout.kind})" for layout in _LAYOUTS
        )
        found = ", ".join(repr(column) for column in list(row)[:20])
        raise TraceError(f"{self._path}: columns {found} are none of these: {known}")

    def _seconds(self, number: int, row: Row, layout: _Layout) -> float:
        value = self._field(number, row, layout.time)
        seconds = _as_number(value)
        dated = seconds is None
        if seconds is None:
            seconds = _as_moment(value)
            if seconds is None:
                raise self._wrong(number, layout.time, value, "neither a number nor an ISO 8601 time")
        else:
            seconds *= layout.unit
        if self._dated is None:
            self._dated = dated
        if dated != self._dated:
            raise self._wrong(number, layout.time, value, "a date among numbers, or a number among dates")
        if not math.isfinite(seconds):
            raise self._wrong(number, layout.time, value, "not a finite number")
        if seconds < 0 and not (dated or layout.absolute):
            raise self._wrong(number, layout.time, value, "before the start of the trace")
        return seconds

    def _tokens(self, number: int, row: Row, column: str, least: int) -> int:
        value = self._field(number, row, column)
        tokens = _as_number(value)
        if tokens is None or not math.isfinite(tokens) or tokens != int(tokens):
            raise self._wrong(number, column, value, "not a whole number")
        if not least <= tokens <= MAX_TOKENS:
            raise self._wrong(number, column, value, f"not within {least} to {MAX_TOKENS}")
        return int(tokens)

    def _cached_tokens(self, number: int, row: Row, column: str | None) -> int:
        if column is None or row.get(column) in (None, ""):
            return 0
        cached = self._tokens(number, row, column, least=0)
        if cached > self._input[-1]:
            raise self._wrong(number, column, cached, f"more than the {self._input[-1]} tokens of the prompt")
        return cached

    def _block_list(self, number: int, row: Row, column: str) -> Sequence[Hashable]:
        value = row.get(column)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(block, int | str) for block in value):
            raise self._wrong(number, column, value, "not a list of block numbers")
        return tuple(value)

    def _field(self, number: int, row: Row, column: str) -> Any:
        if column not in row:
            raise TraceError(f"{self._path}, line {number}: column {column} is missing")
        return row[column]

    def _wrong(self, number: int, column: str, value: Any, reason: str) -> TraceError:
        shown = repr(value)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        return TraceError(f"{self._path}, line {number}, column {column}: {shown} is {reason}")


def _duration(time: Floats) -> float:
    span = float(time[-1] - time[0])
    # All at one instant, or one request alone, show no gap: one second.
    return float(time[-1]) + (span / (len(time) - 1) if span > 0 else 1.0)


def _as_number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _as_moment(value: Any) -> float | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
