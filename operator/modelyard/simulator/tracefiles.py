"""Rows of trace files: CSV or one JSON object a line, gzipped or not, with errors that name the line."""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

MAX_LINE = 1 << 20
"""Characters of one line. A Mooncake row of a prompt of a million tokens has about 16,000."""

_GZIP_MAGIC = b"\x1f\x8b"

Row = Mapping[str, Any]


class TraceError(ValueError):
    """The file is no trace that can be read; the message names the file, the line and what is wrong."""


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield the number of each line and its fields by name. The content tells the form, not the file's name.

    Raises TraceError for a file that cannot be opened or decoded, or a row that does not fit the form.
    """
    try:
        with _open_text(path) as file:
            lines = _bounded_lines(file, path)
            number, first = next(((number, line) for number, line in lines if line.strip()), (0, ""))
            if not first:
                raise TraceError(f"{path} is empty")
            if first.lstrip().startswith("{"):
                yield from _json_rows(path, number, first, lines)
            else:
                yield from _csv_rows(path, number, first, lines)
    except UnicodeDecodeError as error:
        raise TraceError(f"{path} is not UTF-8 text: {error.reason}") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TraceError(f"{path} is damaged gzip data: {error}") from error
    except OSError as error:
        raise TraceError(f"{path} cannot be read: {error.strerror or error}") from error


def _open_text(path: Path) -> IO[str]:
    with path.open("rb") as file:
        packed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    # utf-8-sig: spreadsheets write a byte order mark.
    if packed:
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _bounded_lines(file: IO[str], path: Path) -> Iterator[tuple[int, str]]:
    """Yield numbered lines; a file without line ends must not fill the memory."""
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise TraceError(f"{path}, line {number}: longer than {MAX_LINE} characters")
        yield number, line


def _csv_rows(
    path: Path, number: int, header: str, lines: Iterator[tuple[int, str]]
) -> Iterator[tuple[int, Row]]:
    names = [name.strip() for name in next(csv.reader([header]))]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise TraceError(f"{path}, line {number}: column {repeated[0]!r} comes twice")
    skipped = number
    reader = csv.reader((line for _, line in lines), strict=True)
    try:
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(names):
                raise TraceError(
                    f"{path}, line {skipped + reader.line_num}: {len(fields)} fields, but the header names {len(names)}"
                )
            yield skipped + reader.line_num, dict(zip(names, fields, strict=True))
    except csv.Error as error:
        raise TraceError(f"{path}, line {skipped + reader.line_num}: {error}") from error


def _json_rows(
    path: Path, number: int, first: str, lines: Iterator[tuple[int, str]]
) -> Iterator[tuple[int, Row]]:
    yield number, _json_row(path, number, first)
    for later, line in lines:
        if line.strip():
            yield later, _json_row(path, later, line)


def _json_row(path: Path, number: int, line: str) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{path}, line {number}: no JSON object: {error}") from error
    if not isinstance(row, dict):
        raise TraceError(f"{path}, line {number}: no JSON object but a {type(row).__name__}")
    return row
