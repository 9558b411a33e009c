"""The demo's steps: announced, timed, and listed at the end."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console


@dataclass(slots=True)
class Step:
    """One finished step."""

    name: str
    seconds: float
    note: str = ""


@dataclass(slots=True)
class Steps:
    """Prints progress lines and remembers how long each step took."""

    console: Console
    finished: list[Step] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Announce a step and time it; whoever runs it may set its `note`."""
        step = Step(name, 0.0)
        self.console.print(f"[bold]▸ {name}[/]")
        began = time.monotonic()
        try:
            yield step
        except BaseException:
            self.console.print(f"  [red]✗ stopped after {time.monotonic() - began:.1f} s[/]")
            raise
        step.seconds = time.monotonic() - began
        self.finished.append(step)
        note = f": {step.note}" if step.note else ""
        self.console.print(f"  [green]✓[/] {step.seconds:.1f} s{note}", highlight=False)

    def say(self, line: str) -> None:
        """Print a line below the current step."""
        self.console.print(f"  {line}", style="dim", markup=False, highlight=False)

    @property
    def total_s(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self._began
