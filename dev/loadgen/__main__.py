"""Command line of the load generator."""

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dev.loadgen.player import DEFAULT_TIMEOUT_S, LoadGenerator
from dev.loadgen.records import RequestRecord, summarise, write_records
from dev.loadgen.schedule import PlannedRequest, peak_rate, plan_requests
from dev.traces import CONVERSATION_2023, read_trace, select_window

PROGRESS_INTERVAL_S = 5.0
"""Seconds between progress lines."""

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command()
def play(
    url: Annotated[str, typer.Option(help="Gateway or engine, without /v1: http://127.0.0.1:8080")],
    model: Annotated[str, typer.Option(help="The name to send as `model`.")],
    trace: Annotated[Path, typer.Option(help="Azure-style CSV, gzipped or not.")] = CONVERSATION_2023,
    start: Annotated[float, typer.Option(help="Where in the trace to begin, in seconds.")] = 0.0,
    duration: Annotated[
        float, typer.Option(help="How much of the trace to play, in seconds of the trace.")
    ] = 60.0,
    speed: Annotated[float, typer.Option(help="2.5 plays ten minutes in four.")] = 1.0,
    scale_rate: Annotated[float, typer.Option(help="0.5 sends half of the requests, 2 twice as many.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Which requests --scale-rate picks.")] = 1,
    timeout: Annotated[float, typer.Option(help="Seconds one request may take, held time included.")] = (
        DEFAULT_TIMEOUT_S
    ),
    records: Annotated[
        Path | None, typer.Option(help="Write one JSON line per request to this file.")
    ] = None,
) -> None:
    """Play recorded requests at exact times, and count what comes back.

    The loop is open: a slow server does not slow the senders down. Prompts are lists of token ids, so their
    size is exact; answers have the recorded length. A request is **lost** unless it ends in a 200 with a
    complete stream and exact usage, and **held** if it waited in the gateway for a sleeping model. Exit code
    1 if any request is lost.

    Ten minutes of a chat service's traffic in four:
    `python -m dev.loadgen --url http://127.0.0.1:8080 --model llama-3.1-8b --duration 600 --speed 2.5`
    """
    window = select_window(read_trace(trace), start, duration)
    planned = plan_requests(window, speed=speed, scale_rate=scale_rate, seed=seed)
    if not planned:
        sys.exit(
            f"the trace has no request from {start:g} to {start + duration:g} s: change --start or --duration"
        )
    _say(
        f"{len(planned)} requests over {planned[-1].at_s:.0f} s, at most {peak_rate(planned):.1f}/s over 10 s"
    )
    generator = LoadGenerator(url, model, timeout_s=timeout)
    try:
        finished = asyncio.run(_run(generator, planned))
    except KeyboardInterrupt:
        sys.exit("stopped; requests under way were cancelled")
    if records is not None:
        write_records(finished, records)
    summary = summarise(finished)
    print(json.dumps(asdict(summary), indent=2))
    if summary.lost:
        sys.exit(1)


async def _run(generator: LoadGenerator, planned: list[PlannedRequest]) -> list[RequestRecord]:
    reporter = asyncio.create_task(_report(generator))
    try:
        return await generator.run(planned)
    finally:
        reporter.cancel()


async def _report(generator: LoadGenerator) -> None:
    while True:
        await asyncio.sleep(PROGRESS_INTERVAL_S)
        progress = generator.progress
        _say(
            f"sent {progress.sent}, answered {progress.answered}, lost {progress.lost}, "
            f"under way {progress.in_flight}"
        )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    app()
