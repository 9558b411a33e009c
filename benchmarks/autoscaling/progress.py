"""One line that says how far the work is; without a terminal a new one now and then."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

EVERY = 60.0
"""Seconds between two lines where there is no terminal."""


def in_words(seconds: float) -> str:
    """Return a duration in minutes and seconds."""
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class Display:
    """Shows the share of the expected work that is done, and the time left at the pace so far."""

    def __init__(self, console: Console, workers: int) -> None:
        """`workers`: processes that work at once."""
        self._console, self._workers = console, workers
        self._expected = self._done = self._taken = 0.0
        self._told = time.monotonic()
        self._bar = Progress(
            BarColumn(), TextColumn("{task.percentage:>3.0f} %  {task.fields[note]}"), console=console
        )
        self._task: TaskID = self._bar.add_task("work", total=1.0, note="")

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    @property
    def left(self) -> float:
        """Seconds that the rest takes: as estimated, corrected by what was done so far."""
        pace = self._taken / self._done if self._done > 0 else 1.0
        return (self._expected - self._done) * pace / self._workers

    def show(self, expected: float, done: float, taken: float, note: str) -> None:
        """Show the state: estimated seconds of all jobs that were not kept and of those done, and what they took."""
        self._expected, self._done, self._taken = expected, done, taken
        text = f"about {in_words(self.left)} left  {note}"
        self._bar.update(self._task, total=max(expected, 1e-9), completed=done, note=text)
        if not self._console.is_terminal and time.monotonic() - self._told >= EVERY:
            self._told = time.monotonic()
            share = done / expected if expected else 1.0
            self._console.print(f"{share:.0%} done, {text}", soft_wrap=True)
