"""What `modelyard simulate` lets go wrong: clients who give up, old and lost metrics, replicas that are taken away."""

import re
from collections.abc import Sequence

from modelyard.api.quantities import parse_duration
from modelyard.cli.manifests import InputError
from modelyard.simulator.scenario import Disturbances

MOST_LOST = 1000
"""Replicas that one loss may take away: as many as `scaling.max` allows."""


def parse_disturbances(
    *,
    abandon_after: float | None = None,
    retries: int = 0,
    scrape_delay: float = 0.0,
    lost_metrics: Sequence[str] = (),
    spot_losses: Sequence[str] = (),
) -> Disturbances:
    """Return what goes wrong. Raises InputError that names the option.

    `abandon_after`, `scrape_delay`: seconds. `lost_metrics`: `20m-35m` each. `spot_losses`: `30m=2` each.
    """
    if retries and abandon_after is None:
        raise InputError("--retries: clients only ask again after they gave up: give --abandon-after, too")
    return Disturbances(
        reading_delay=scrape_delay,
        lost_readings=tuple(sorted(_parse_interval(text) for text in lost_metrics)),
        abandon_after=abandon_after,
        retries=retries,
        spot_losses=tuple(sorted(_parse_loss(text) for text in spot_losses)),
    )


def check_times(disturbances: Disturbances, duration: float) -> None:
    """Raise InputError for what would come only after traffic of so many seconds."""
    late = [start for start, _ in disturbances.lost_readings if start >= duration]
    if late:
        raise InputError(
            f"--lost-metrics: it begins at {late[0]:.0f} s, but the traffic ends at {duration:.0f} s"
        )
    late = [time for time, _ in disturbances.spot_losses if time >= duration]
    if late:
        raise InputError(
            f"--spot-loss: it comes at {late[0]:.0f} s, but the traffic ends at {duration:.0f} s"
        )


def _parse_interval(text: str) -> tuple[float, float]:
    first, dash, last = text.partition("-")
    try:
        start, end = float(parse_duration(first)), float(parse_duration(last))
    except ValueError as error:
        hint = f": {error}" if dash else ""
        raise InputError(
            f"--lost-metrics: {text!r} is no time from the start of the traffic to another, such as 20m-35m{hint}"
        ) from error
    if end <= start:
        raise InputError(f"--lost-metrics: {text!r} ends before it begins")
    return start, end


def _parse_loss(text: str) -> tuple[float, int]:
    moment, _, count = text.partition("=")
    try:
        time = float(parse_duration(moment))
    except ValueError as error:
        raise InputError(f"--spot-loss: {text!r} is no time and replicas, such as 30m=2: {error}") from error
    if not re.fullmatch("[0-9]{1,4}", count or "1", re.ASCII) or not 1 <= int(count or "1") <= MOST_LOST:
        raise InputError(f"--spot-loss: {text!r}: replicas must be from 1 to {MOST_LOST}")
    return time, int(count or "1")
