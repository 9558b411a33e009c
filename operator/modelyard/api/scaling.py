"""`LLMDeployment.spec.scaling`: how many replicas, decided by Modelyard."""

import re
import zoneinfo
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Annotated, ClassVar, Final, Literal

from cronsim import CronSim, CronSimError
from pydantic import Field, StringConstraints

from modelyard.api.meta import ApiModel, DnsLabel, Rule
from modelyard.api.quantities import Duration, Latency, parse_duration, parse_latency

CronText = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z*,/@ -]+$", max_length=128)]
"""The characters of a cron expression, and the `@` of the macros, so that a rule can say what to write instead."""
TimeZoneName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$", min_length=2, max_length=32)
]
"""A name of the IANA time zone database; `America/Argentina/ComodRivadavia` is the longest there (2026b)."""

LONGEST_WINDOW: Final = 7 * 24 * 3600
"""Seconds. What holds for longer is no event but the usual."""


def _cron_field(value: str) -> str:
    """Return the pattern of a list of values, ranges and `*`, each with a step or without."""
    item = f"([*]|({value})(-({value}))?)(/0*[1-9][0-9]*)?"
    return f"{item}(,{item})*"


CRON_PATTERN: Final = "^ *{} *$".format(
    " +".join(
        _cron_field(value)
        for value in (
            "[0-5]?[0-9]",
            "[01]?[0-9]|2[0-3]",
            "0?[1-9]|[12][0-9]|3[01]",
            "0?[1-9]|1[0-2]|(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)",
            "0?[0-7]|(?i:sun|mon|tue|wed|thu|fri|sat)",
        )
    )
)
"""Five fields as crontab(5) has them: https://man7.org/linux/man-pages/man5/crontab.5.html.

In the regular expressions that Go and Python have in common, and without backslashes, which CEL would need twice."""


@lru_cache(maxsize=4096)
def find_cron_fault(start: str) -> str | None:
    """Return what is wrong with a cron expression, in a few words; None: it comes, now and then."""
    if not re.fullmatch(CRON_PATTERN, start):
        return "it is not five cron fields"
    try:
        # In a leap year every day of the calendar is still to come.
        found = next(CronSim(start, datetime(2024, 1, 1, tzinfo=UTC)), None)
    except CronSimError as error:
        return str(error)
    return "no day matches" if found is None else None


@cache
def known_time_zones() -> frozenset[str]:
    """Return the names of the time zones of this machine, or of the package tzdata where it has none."""
    # `localtime` is whatever the machine is set to.
    return frozenset(zoneinfo.available_timezones() - {"localtime"})


class ServiceObjective(ApiModel):
    """How fast answers must be."""

    time_to_first_token: Latency = Field(default="2s", description="From 50ms to 300s.")
    inter_token_latency: Latency = Field(
        default="100ms", description="Between two tokens of an answer, from 1ms to 10s."
    )

    RULES: ClassVar[tuple[Rule["ServiceObjective"], ...]] = (
        Rule(
            name="time-to-first-token-bounds",
            cel="duration(self.timeToFirstToken) >= duration('50ms') "
            "&& duration(self.timeToFirstToken) <= duration('300s')",
            message="timeToFirstToken must be from 50ms to 300s",
            holds=lambda objective: 0.05 <= parse_latency(objective.time_to_first_token) <= 300,
            field_path=".timeToFirstToken",
        ),
        Rule(
            name="inter-token-latency-bounds",
            cel="duration(self.interTokenLatency) >= duration('1ms') "
            "&& duration(self.interTokenLatency) <= duration('10s')",
            message="interTokenLatency must be from 1ms to 10s",
            holds=lambda objective: 0.001 <= parse_latency(objective.inter_token_latency) <= 10,
            field_path=".interTokenLatency",
        ),
    )


class ExternalScaling(ApiModel):
    """Who carries out the size with `actuator: External`."""

    scaler: Literal["HorizontalPodAutoscaler", "ScaledObject", "None"] = Field(
        default="HorizontalPodAutoscaler",
        description="The object that Modelyard makes on the child Deployment: a HorizontalPodAutoscaler, which needs a "
        "metrics adapter that serves modelyard_desired_replicas, or KEDA's ScaledObject. None: you bring your own.",
    )


class Schedule(ApiModel):
    """Other bounds in a recurring window of time."""

    name: DnsLabel
    start: CronText = Field(
        description="When the window starts, as cron says it: minute, hour, day of the month, month, day of the week. "
        "Replicas start ahead of it, so that min of them serve by then."
    )
    duration: Duration = Field(description="How long the window is (1m to 168h).")
    time_zone: TimeZoneName = Field(default="UTC", description="IANA time zone of start.")
    min: Annotated[int, Field(ge=0, le=1000)] | None = Field(
        default=None, description="In place of scaling.min. Of windows that overlap, the highest counts."
    )
    max: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="In place of scaling.max. Of windows that overlap, the highest counts."
    )

    RULES: ClassVar[tuple[Rule["Schedule"], ...]] = (
        Rule(
            name="start-is-cron",
            cel=f"self.start.matches('{CRON_PATTERN}')",
            message="start must be five cron fields (minute hour day month weekday), as in 0 8 * * 1-5, that some day "
            "matches; macros such as @daily, seconds, L, # and ? are not taken",
            # A pattern cannot tell that a range runs backwards, or that there is no 30 February.
            holds=lambda schedule: find_cron_fault(schedule.start) is None,
            field_path=".start",
        ),
        Rule(
            name="time-zone-is-known",
            # A name that is not in the API server's database is an error of the expression, and so a refusal. It names
            # no fieldPath: the API server does not tell that of an expression with an error.
            cel="!(self.timeZone in ['Local', 'localtime']) "
            "&& timestamp('2026-01-01T00:00:00Z').getFullYear(self.timeZone) > 0",
            message="timeZone must be a name of the IANA time zone database, as in Europe/Berlin",
            holds=lambda schedule: schedule.time_zone in known_time_zones(),
        ),
        Rule(
            name="duration-bounds",
            cel="duration(self.duration) >= duration('1m') && duration(self.duration) <= duration('168h')",
            message="duration must be from 1m to 168h",
            holds=lambda schedule: 60 <= parse_duration(schedule.duration) <= LONGEST_WINDOW,
            field_path=".duration",
        ),
        Rule(
            name="schedule-sets-a-bound",
            cel="has(self.min) || has(self.max)",
            message="a schedule needs min, max or both: without them it changes nothing",
            holds=lambda schedule: schedule.min is not None or schedule.max is not None,
        ),
    )


class Scaling(ApiModel):
    """How many replicas, decided by Modelyard."""

    min: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=1, description="0 lets the model sleep when idle."
    )
    max: Annotated[int, Field(ge=1, le=1000)]
    slo: ServiceObjective = Field(
        default_factory=ServiceObjective, description="A replica's capacity is what it answers within this."
    )
    idle_after: Duration = Field(
        default="10m",
        description="With min 0: sleep after this long without a request, or after one start time at least where the "
        "gaps between the requests so far say that waking it again costs less than keeping it (10s to 168h).",
    )
    schedules: Annotated[
        tuple[Schedule, ...],
        Field(
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
            description="Other bounds at times known beforehand, such as business hours.",
        ),
    ] = ()
    mode: Literal["Active", "Advise"] = Field(
        default="Active", description="Advise computes and reports the size but changes nothing."
    )
    actuator: Literal["Modelyard", "External"] = Field(
        default="Modelyard",
        description="External leaves the child Deployment's replicas to an HPA or ScaledObject.",
    )
    external: ExternalScaling | None = Field(
        default=None, description="With actuator External. Absent: a HorizontalPodAutoscaler."
    )

    RULES: ClassVar[tuple[Rule["Scaling"], ...]] = (
        Rule(
            name="min-not-above-max",
            cel="self.min <= self.max",
            message="min must not be above max: lower min or raise max",
            holds=lambda scaling: scaling.min <= scaling.max,
            field_path=".min",
        ),
        Rule(
            name="schedule-min-not-above-max",
            cel="!has(self.schedules) || self.schedules.all(schedule, "
            "(has(schedule.min) ? schedule.min : self.min) <= (has(schedule.max) ? schedule.max : self.max))",
            message="in a schedule min must not be above max, where what it leaves out is that of scaling: lower min "
            "or raise max",
            holds=lambda scaling: all(
                (scaling.min if schedule.min is None else schedule.min) <= (schedule.max or scaling.max)
                for schedule in scaling.schedules
            ),
            field_path=".schedules",
        ),
        Rule(
            name="external-keeps-one",
            cel="self.actuator != 'External' || self.min >= 1",
            message="min must be 1 or more with actuator External: only Modelyard can wake a sleeping model",
            holds=lambda scaling: scaling.actuator != "External" or scaling.min >= 1,
            field_path=".min",
        ),
        Rule(
            name="external-schedules-keep-one",
            cel="self.actuator != 'External' || !has(self.schedules) "
            "|| self.schedules.all(schedule, !has(schedule.min) || schedule.min >= 1)",
            message="in a schedule min must be 1 or more with actuator External: only Modelyard can wake a sleeping "
            "model",
            holds=lambda scaling: scaling.actuator != "External" or 0 not in _minimums(scaling.schedules),
            field_path=".schedules",
        ),
        Rule(
            name="external-needs-actuator",
            cel="!has(self.external) || self.actuator == 'External'",
            message="external is only used with actuator External: set actuator, or remove external",
            holds=lambda scaling: scaling.external is None or scaling.actuator == "External",
            field_path=".external",
        ),
        Rule(
            name="idle-after-bounds",
            cel="duration(self.idleAfter) >= duration('10s') && duration(self.idleAfter) <= duration('168h')",
            message="idleAfter must be from 10s to 168h",
            holds=lambda scaling: 10 <= parse_duration(scaling.idle_after) <= 168 * 3600,
            field_path=".idleAfter",
        ),
    )

    @property
    def lowest_min(self) -> int:
        """The smallest size that it may ever have, whatever schedule is in force."""
        return min((self.min, *_minimums(self.schedules)))

    @property
    def highest_max(self) -> int:
        """The largest size that it may ever have, whatever schedule is in force."""
        return max((self.max, *(schedule.max for schedule in self.schedules if schedule.max is not None)))


def _minimums(schedules: tuple[Schedule, ...]) -> tuple[int, ...]:
    return tuple(schedule.min for schedule in schedules if schedule.min is not None)
