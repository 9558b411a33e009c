"""The ledger as JSON: names once, keys as numbers of names, rows as lists. One object must stay below 1 MiB."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from modelyard.core.ledger.book import Ledger, OpenHour, SettledHour
from modelyard.core.ledger.settle import Charged, Held, Line
from modelyard.core.ledger.usage import USE_FIELDS, NodeCounts, Use, spend_key
from modelyard.core.spend import SpendKey

VERSION = 1
"""Of the format. A ledger of another version is not read, and not overwritten."""

_DOLLARS, _HOURS = 9, 6
"""Decimal places: a token of the cheapest model costs 1e-8 dollars, and a second is 0.0003 hours."""

_WIDTH = len(USE_FIELDS)


class LedgerError(Exception):
    """A text is no ledger of this version."""


@dataclass(frozen=True, slots=True)
class Archive:
    """Settled lines of one hour or one day."""

    start: int
    """Unix time."""
    seconds: int
    """How long it is."""
    lines: tuple[Line, ...]


@dataclass(slots=True)
class _Keys:
    """Numbers for keys, in the order in which they are asked for."""

    names: dict[str, int] = field(default_factory=dict)
    numbers: dict[SpendKey, int] = field(default_factory=dict)

    def number(self, key: SpendKey) -> int:
        """Return the number of a key."""
        return self.numbers.setdefault(key, len(self.numbers))

    def table(self) -> dict[str, Any]:
        """Return names and keys."""
        keys = [
            [self._name(key.tenant), self._name(key.route), self._name(key.target)] for key in self.numbers
        ]
        return {"names": list(self.names), "keys": keys}

    def _name(self, text: str) -> int:
        return self.names.setdefault(text, len(self.names))


def encode_ledger(ledger: Ledger) -> str:
    """Return the open part of the ledger as JSON. Equal ledgers give equal texts."""
    keys = _Keys()
    hour = ledger.hour
    body = {
        "version": VERSION,
        "time": ledger.time,
        "nodes": {
            node: [last.time, last.uptime, _counts(last.counts, keys)]
            for node, last in sorted(ledger.nodes.items())
        },
        "hour": None
        if hour is None
        else [
            hour.start,
            [
                [
                    keys.number(key),
                    *item.use.values,
                    round(item.dollars, _DOLLARS),
                    round(item.estimated, _DOLLARS),
                    int(item.unpriced),
                ]
                for key, item in sorted(hour.uses.items())
            ],
            {
                name: [
                    round(held.hours, _HOURS),
                    round(held.dollars, _DOLLARS),
                    round(held.unpriced, _HOURS),
                    round(held.room, 3),
                ]
                for name, held in sorted(hour.held.items())
            },
        ],
        "settled": [[item.start, _encode_lines(item.lines, keys)] for item in ledger.settled],
    }
    return _dump({**body, **keys.table()})


def decode_ledger(text: str) -> Ledger:
    """Return the ledger of a text. Raises LedgerError for anything that is none."""
    try:
        body = _load(text)
        keys = _read_keys(body)
        hour = body["hour"]
        return Ledger(
            time=float(body["time"]),
            nodes={
                node: NodeCounts(
                    float(time),
                    uptime,
                    None if counts is None else {keys[row[0]]: Use(*row[1:]) for row in counts},
                )
                for node, (time, uptime, counts) in body["nodes"].items()
            },
            hour=None
            if hour is None
            else OpenHour(
                hour[0],
                {
                    keys[row[0]]: Charged(
                        Use(*row[1 : 1 + _WIDTH]), row[1 + _WIDTH], row[2 + _WIDTH], bool(row[3 + _WIDTH])
                    )
                    for row in hour[1]
                },
                {name: Held(*row) for name, row in hour[2].items()},
            ),
            settled=tuple(SettledHour(start, _decode_lines(rows, keys)) for start, rows in body["settled"]),
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise LedgerError(f"it is not a ledger: {error!r}") from error


def encode_archive(archive: Archive) -> str:
    """Return the lines of an hour or a day as JSON."""
    keys = _Keys()
    rows = _encode_lines(archive.lines, keys)
    body = {"version": VERSION, "start": archive.start, "seconds": archive.seconds, "lines": rows}
    return _dump({**body, **keys.table()})


def decode_archive(text: str) -> Archive:
    """Return the hour or day of a text. Raises LedgerError for anything that is none."""
    try:
        body = _load(text)
        return Archive(
            int(body["start"]), int(body["seconds"]), _decode_lines(body["lines"], _read_keys(body))
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise LedgerError(f"it is not a part of a ledger: {error!r}") from error


def _counts(counts: Mapping[SpendKey, Use] | None, keys: _Keys) -> list[list[int]] | None:
    if counts is None:
        return None
    return [[keys.number(key), *use.values] for key, use in sorted(counts.items())]


def _encode_lines(lines: Iterable[Line], keys: _Keys) -> list[list[float]]:
    return [
        [
            keys.number(line.key),
            *line.use.values,
            round(line.hours, _HOURS),
            round(line.dollars, _DOLLARS),
            round(line.marginal, _DOLLARS),
            round(line.estimated, _DOLLARS),
            int(line.unpriced),
            int(line.unmeasured),
        ]
        for line in lines
    ]


def _decode_lines(rows: Iterable[list[Any]], keys: list[SpendKey]) -> tuple[Line, ...]:
    return tuple(
        Line(
            keys[row[0]],
            Use(*row[1 : 1 + _WIDTH]),
            hours=row[1 + _WIDTH],
            dollars=row[2 + _WIDTH],
            marginal=row[3 + _WIDTH],
            estimated=row[4 + _WIDTH],
            unpriced=bool(row[5 + _WIDTH]),
            unmeasured=bool(row[6 + _WIDTH]),
        )
        for row in rows
    )


def _read_keys(body: Mapping[str, Any]) -> list[SpendKey]:
    names = body["names"]
    return [spend_key(names[tenant], names[route], names[target]) for tenant, route, target in body["keys"]]


def _load(text: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(text)
    if body["version"] != VERSION:
        raise LedgerError(f"it has version {body['version']}, and this program reads {VERSION}: upgrade it")
    return body


def _dump(body: Mapping[str, Any]) -> str:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False)
