"""What the stand-in's own variables say: `STANDIN_*` at the start, faults also at run time."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Self

from dev.standin.profiles import PROFILES

PREFIX = "STANDIN_"
"""Prefix of the variables; the rest is a field's name in capitals."""


class MetricsMode(StrEnum):
    """What `/metrics` answers."""

    TRUE = "true"
    GARBAGE = "garbage"
    """200 with text that no parser accepts."""
    MISSING = "missing"
    """200 without any `vllm:` metric."""
    RENAMED = "renamed"
    """The right values under other names."""
    ERROR = "error"
    """500."""


def _option(default: object, summary: str) -> Any:
    """Declare a field with the sentence that `--help` prints."""
    return field(default=default, metadata={"summary": summary})


class _Variables:
    """A frozen dataclass of plain values that can be read from variables or JSON."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the fields that are set; the others keep their defaults.

        Raises ValueError that names the variable.
        """
        given = {
            entry.name: environment[PREFIX + entry.name.upper()]
            for entry in fields(cls)  # type: ignore[arg-type]
            if PREFIX + entry.name.upper() in environment
        }
        return cls().patched(given)

    def patched(self, changes: object) -> Self:
        """Return a copy with some fields replaced, from a mapping of strings or JSON values.

        Raises ValueError for anything but a mapping, an unknown field, a value of another type, or one
        out of range.
        """
        if not isinstance(changes, Mapping):
            raise ValueError("not a JSON object")  # noqa: TRY004 - callers handle one kind of error
        known = {entry.name: entry for entry in fields(self)}  # type: ignore[arg-type]
        values = {}
        for name, value in changes.items():
            if name not in known:
                raise ValueError(f"unknown field {name!r}; known: {', '.join(known)}")
            values[name] = _convert(name, value, known[name].default)
        changed: Self = replace(self, **values)  # type: ignore[type-var]
        changed.check()
        return changed

    def check(self) -> None:
        """Raise ValueError if a value is out of range."""

    @classmethod
    def describe(cls) -> list[str]:
        """Return one line per variable for `--help`."""
        return [
            f"  {PREFIX + entry.name.upper():<34} {entry.metadata['summary']} (default: {entry.default})"
            for entry in fields(cls)  # type: ignore[arg-type]
        ]


@dataclass(frozen=True, slots=True)
class Settings(_Variables):
    """How the stand-in behaves from the start. Times are seconds."""

    profile: str = _option("zero", "step-time profile: " + ", ".join(PROFILES))
    time_scale: float = _option(1.0, "divides step times and the load delay")
    load_seconds: float = _option(0.0, "time to load; the port is closed until then")
    health_before_ready: bool = _option(False, "fault: listen and answer 200 on /health while loading")
    crash_at_start: bool = _option(False, "fault: exit with CRASH_EXIT_CODE instead of becoming ready")
    host: str = _option("", "address to listen on, instead of --host")
    port: int = _option(-1, "port to listen on, instead of --port; -1: no override")
    kv_cache_tokens: int = _option(0, "KV cache in tokens; 0: the profile's")
    output_tokens: int = _option(64, "length at which the text ends by itself, unless ignore_eos")
    tokens_per_event: int = _option(4, "tokens in one SSE event, after the first event with one token")

    def check(self) -> None:
        """Raise ValueError if a value is out of range."""
        if self.profile not in PROFILES:
            raise ValueError(f"profile must be one of {', '.join(PROFILES)}")
        if self.time_scale <= 0:
            raise ValueError("time_scale must be above 0")
        if self.load_seconds < 0 or self.kv_cache_tokens < 0:
            raise ValueError("load_seconds and kv_cache_tokens must not be negative")
        if self.output_tokens < 1 or self.tokens_per_event < 1:
            raise ValueError("output_tokens and tokens_per_event must be at least 1")


@dataclass(frozen=True, slots=True)
class Faults(_Variables):
    """Faults that can be switched while the stand-in runs. Times are seconds, unscaled."""

    crash_after_requests: int = _option(
        0, "exit on the arrival of the Nth generation request from now; 0: never"
    )
    crash_after_seconds: float = _option(
        0.0, "exit that long after the port opened or this was set; 0: never"
    )
    crash_exit_code: int = _option(1, "exit code of crashes")
    hang_on_drain: bool = _option(False, "ignore SIGTERM")
    metrics: MetricsMode = _option(  # noqa: RUF009 - a field like the others
        MetricsMode.TRUE, "answer of /metrics: true, garbage, missing, renamed or error"
    )
    error_share: float = _option(0.0, "share of generation requests, 0 to 1, refused with ERROR_STATUS")
    error_status: int = _option(500, "status of refused requests, such as 429, 500 or 503")
    break_stream_share: float = _option(0.0, "share of streams, 0 to 1, whose connection is reset mid-way")
    break_stream_after_tokens: int = _option(8, "tokens that a broken stream carries")
    first_byte_delay_seconds: float = _option(0.0, "wait before the response's headers")

    def check(self) -> None:
        """Raise ValueError if a value is out of range."""
        if not (0 <= self.error_share <= 1 and 0 <= self.break_stream_share <= 1):
            raise ValueError("shares must lie between 0 and 1")
        if not 400 <= self.error_status <= 599:
            raise ValueError("error_status must lie between 400 and 599")
        if not 0 <= self.crash_exit_code <= 255:
            raise ValueError("crash_exit_code must lie between 0 and 255")
        if self.crash_after_requests < 0 or self.crash_after_seconds < 0:
            raise ValueError("crash_after_requests and crash_after_seconds must not be negative")
        if self.break_stream_after_tokens < 0 or self.first_byte_delay_seconds < 0:
            raise ValueError("break_stream_after_tokens and first_byte_delay_seconds must not be negative")


_TRUTHS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def _convert(name: str, value: object, default: object) -> object:
    """Convert a string or a JSON value to the type of the field's default."""
    wanted = type(default)
    if isinstance(value, str):
        try:
            return _TRUTHS[value.lower()] if wanted is bool else wanted(value)  # type: ignore[call-arg]
        except (ValueError, KeyError) as error:
            raise ValueError(f"{name}: {value!r} is no {wanted.__name__}") from error
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise ValueError(f"{name}: {value!r} is no {wanted.__name__}")
    return value
