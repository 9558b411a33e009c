"""The benchmark's scenarios: one file each in `scenarios/`, read strictly."""

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

FOLDER = Path(__file__).parent / "scenarios"
SLICES = ("highest", "steepest", "lowest", "median")
"""Rules by which the four stretches of a ServeGen load are chosen (`modelyard.simulator.slices`)."""
WHOLE = "whole"
"""The one part of a load that is not played in stretches."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Load(_Strict):
    """Where the requests come from."""

    kind: Literal["servegen", "azure", "step", "sinusoid"]
    replicas: float | None = Field(None, gt=0)
    """Peak over the capacity of one replica, both at the whole trace's mean request; for traces."""
    before: float = Field(0.0, ge=0)
    """Of a step: requests per second before it."""
    at: float = Field(0.0, ge=0)
    """Of a step: seconds."""
    duration: float = Field(0.0, ge=0)
    """Of a made load: seconds."""
    limit: float | None = Field(None, gt=0)
    """Seconds of each part that are played; None: all. For smoke runs."""


class Goal(_Strict):
    """When a request attains (`Objective` of the simulator)."""

    first_token_base: float = 1.0
    first_token_per_input_token: float = 0.0005
    inter_token: float = 0.040


class Bars(_Strict):
    """What is to be reached; None: nothing is asked for."""

    attainment: float | None = None
    to_clairvoyant: float | None = None
    """Cost over that of the clairvoyant planner, at most."""
    to_bound: float | None = None
    """Replica-hours over those of the zero-lead bound, at most."""
    drained_after_start: float | None = None
    """Of a step: seconds after one start time by which what waits is answered."""
    overshoot: int | None = None
    """Of a step: replicas above the clairvoyant's, at most."""
    agreement: float | None = None
    """Attainment by which flow and request level may differ."""


class Effort(_Strict):
    """How much is played request by request."""

    seeds: int = Field(ge=1)
    """Of our decision and the clairvoyant."""
    rivals: int | None = Field(None, ge=0)
    """How many published rules: those that do best as a flow, the others stay a flow; None: all."""
    rival_seeds: int = Field(1, ge=0)
    steps: int = Field(ge=1)
    """Schedules played in each bisection of the search for the clairvoyant's."""
    rounds: int = Field(ge=0)
    """How often that search measures the misses near its schedule."""
    trials: int = Field(ge=0)
    """Changes of the schedule that it plays at the end."""
    days: bool = False
    """Whether all 14 days are played as a flow too; for a load of ServeGen."""


class Case(_Strict):
    """One file."""

    name: str
    title: str
    load: Load
    start: float = Field(ge=0)
    """Seconds, median."""
    objective: Goal = Goal()
    bars: Bars
    default: Effort
    full: Effort

    def effort(self, *, full: bool) -> Effort:
        """Return how much is played."""
        return self.full if full else self.default

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the stretches that are played."""
        if self.load.kind != "servegen":
            return (WHOLE,)
        return SLICES if self.load.limit is None else SLICES[:1]


def load_case(path: Path) -> Case:
    """Read one scenario. Raises ValueError that names the file and the key that is unknown or wrong."""
    try:
        return Case.model_validate({"name": path.stem} | yaml.safe_load(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def load_cases(folder: Path = FOLDER) -> dict[str, Case]:
    """Read every scenario, by name."""
    return {path.stem: load_case(path) for path in sorted(folder.glob("*.yaml"))}


QUICK = ("step", "azure-conversation", "m-large-2")
"""Scenarios of a smoke run: one of each kind of load."""
_QUICK_SECONDS = 1200.0
"""Seconds of each that are played then: two windows of ten minutes, over which bursts are measured."""


def quick_cases() -> dict[str, Case]:
    """Return scenarios so short that all kinds of work are done in a minute. Their figures say nothing."""
    effort = Effort(seeds=1, rivals=3, rival_seeds=1, steps=2, rounds=1, trials=2)
    return {
        name: case.model_copy(
            update={
                "load": case.load.model_copy(update={"limit": _QUICK_SECONDS}),
                "default": effort.model_copy(update={"days": case.full.days}),
                "full": effort.model_copy(update={"days": case.full.days}),
            }
        )
        for name, case in load_cases().items()
        if name in QUICK
    }
