"""Shows the observer's newest sample: a live table for a person, plain lines for a log."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dev.demo.observer import ModelView, Observer, Sample

REFRESH_PER_S = 2
"""Refreshes of the live table per second."""
LINE_INTERVAL_S = 10.0
"""Seconds between lines where there is no terminal."""

_COLOURS = {"Ready": "green", "Asleep": "blue", "Starting": "yellow", "Stalled": "red", "New": "yellow"}


def build_table(sample: Sample, footer: str) -> Group:
    """Return the table of all models."""
    table = Table(expand=True)
    for name in ("model", "replicas", "state", "reason"):
        table.add_column(name, no_wrap=name != "reason")
    for name in ("requests/s", "tokens/s", "$/h", "$ per million tokens"):
        table.add_column(name, justify="right")
    for model in sample.models:
        table.add_row(
            model.model,
            f"{model.ready} of {model.desired}",
            Text(model.state, style=_COLOURS.get(model.state, "")),
            model.message or model.reason,
            f"{model.requests_per_s:.1f}",
            f"{model.tokens_per_s:,.0f}",
            f"{model.usd_per_hour:.2f}",
            _price(model),
        )
    return Group(table, Text(footer))


def build_lines(sample: Sample) -> list[str]:
    """Return one plain line per model."""
    return [
        f"{model.model}: {model.ready} of {model.desired} replicas, {model.state} ({model.reason}), "
        f"{model.requests_per_s:.1f} requests/s, {model.tokens_per_s:,.0f} tokens/s, "
        f"{model.usd_per_hour:.2f} $/h, {_price(model)} $ per million tokens"
        for model in sample.models
    ]


@asynccontextmanager
async def show(
    observer: Observer, console: Console, *, interactive: bool, footer: Callable[[], str]
) -> AsyncIterator[None]:
    """Show the newest sample while the block runs; `footer` says how the work goes."""
    if interactive:
        with Live(console=console, refresh_per_second=REFRESH_PER_S, transient=False) as live:
            task = asyncio.create_task(_refresh(observer, live, footer))
            try:
                yield
            finally:
                await _end(task)
                live.update(build_table(observer.latest, footer()), refresh=True)
        return
    task = asyncio.create_task(_print_lines(observer, console, footer))
    try:
        yield
    finally:
        await _end(task)


async def _refresh(observer: Observer, live: Live, footer: Callable[[], str]) -> None:
    while True:
        live.update(build_table(observer.latest, footer()))
        await asyncio.sleep(1 / REFRESH_PER_S)


async def _print_lines(observer: Observer, console: Console, footer: Callable[[], str]) -> None:
    while True:
        await asyncio.sleep(LINE_INTERVAL_S)
        for line in (footer(), *build_lines(observer.latest)):
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _price(model: ModelView) -> str:
    return "-" if model.usd_per_million_tokens is None else f"{model.usd_per_million_tokens:.2f}"
