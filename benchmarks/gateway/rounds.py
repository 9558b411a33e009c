"""Loads on every contender in turn, round after round, so that a drift of the machine meets all of them alike."""

import asyncio
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from benchmarks.gateway.bodies import CHAT, PROMPT, STREAM, STREAM_EVENTS, client_name
from benchmarks.gateway.client import Load, Measured
from benchmarks.gateway.contenders import Contender


class WorkMissingError(RuntimeError):
    """Something was not answered as it had to be, so no figure of the run may be shown."""


@dataclass(frozen=True, slots=True)
class Row:
    """One load that every contender gets."""

    key: str
    title: str
    kind: str
    connections: int
    requests: int
    """Of one contender in one round."""
    warmup: int
    """Requests before those that are measured."""

    def shortened(self) -> "Row":
        """Return the same load with just enough requests to show that it runs."""
        connections = min(self.connections, 4)
        return replace(self, connections=connections, requests=connections, warmup=0)

    def load(self, contender: Contender, name: str) -> Load:
        """Return what the load generator sends. `name`: the model's, in the requests."""
        return Load(
            port=contender.port,
            name=name,
            answers=contender.answers(name),
            kind=self.kind,
            connections=self.connections,
            requests=self.requests,
            warmup=self.warmup,
            pid=contender.pid,
            key=contender.key,
        )

    def checked(self, contender: Contender, measured: Measured) -> Measured:
        """Return what was measured. Raises WorkMissingError if an answer is missing."""
        if measured.answered != self.requests:
            raise WorkMissingError(
                f"{self.title}, {contender.name}: {measured.answered} of {self.requests} answered"
            )
        return measured


LATENCY = Row("chat-1", "2 KB chat requests, one at a time", CHAT, 1, 4000, 200)
CROWD = Row("chat-16", "2 KB chat requests, 16 at a time", CHAT, 16, 12_000, 600)
PROMPTS = Row("prompt-8", "300 KB prompts, 8 at a time", PROMPT, 8, 2400, 120)
STREAMS = Row("stream-16", "Streamed answers, 16 at a time", STREAM, 16, 32, 16)
ROWS = (LATENCY, CROWD, PROMPTS, STREAMS)

Rounds = Mapping[str, Sequence[Measured]]
"""What was measured of one row: one entry for each round, by contender."""
Told = Callable[[str], None]
"""Hears that a step is done, and what it was."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the median of some values, and the lowest and the highest."""
        return cls(statistics.median(values), min(values), max(values))


async def play(
    rows: Sequence[Row], contenders: Sequence[Contender], rounds: int, models: int, told: Told
) -> dict[str, Rounds]:
    """Measure every contender under every load, `rounds` times, with requests for the last of `models` models.

    Each round begins with another contender. Raises WorkMissingError if an answer is missing or wrong.
    """
    name = client_name(models - 1)
    found: dict[str, dict[str, list[Measured]]] = {
        row.key: {contender.name: [] for contender in contenders} for row in rows
    }
    for number in range(rounds):
        for row in rows:
            for contender in turned(contenders, number):
                found[row.key][contender.name].append(await _measure(row, contender, name))
                told(f"round {number + 1} of {rounds}: {row.title}, {contender.name}")
    return {key: dict(measured) for key, measured in found.items()}


def figures(measured: Sequence[Measured], figure: Callable[[Measured], float]) -> Spread:
    """Return one figure over the rounds."""
    return Spread.of([figure(one) for one in measured])


def compare(rounds: Rounds, figure: Callable[..., float], *names: str) -> Spread:
    """Return a figure of several contenders over the rounds; only measurements of one round are compared."""
    return Spread.of([figure(*each) for each in zip(*(rounds[name] for name in names), strict=True)])


def rate(measured: Measured) -> float:
    """Return answers per second."""
    return measured.answered / measured.seconds


def microseconds(measured: Measured) -> float:
    """Return the processor time of what is in between for one answer (of a stream: for one event), in microseconds."""
    return 1e6 * measured.processor_seconds / measured.answered


def busy(measured: Measured) -> float:
    """Return the share of one core that what is in between used."""
    return measured.processor_seconds / measured.seconds


def events(measured: Measured) -> int:
    """Return the events of streamed answers."""
    return measured.answered * STREAM_EVENTS


def turned(contenders: Sequence[Contender], number: int) -> list[Contender]:
    """Return the contenders in the order of a round: each begins with another one."""
    first = number % len(contenders)
    return [*contenders[first:], *contenders[:first]]


async def _measure(row: Row, contender: Contender, name: str) -> Measured:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.gateway.client", json.dumps(asdict(row.load(contender, name)))),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        said, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        reason = errors.decode().strip().rpartition("\n")[2]
        raise WorkMissingError(f"{row.title}, {contender.name}: {reason}")
    return row.checked(contender, Measured(**json.loads(said)))
