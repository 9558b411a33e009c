"""The log of the operator: lines for people, or JSON objects for log stores."""

import logging
import time
from typing import Literal

from pythonjsonlogger.json import JsonFormatter

from modelyard.api.meta import split_key

LogFormat = Literal["text", "json"]

ROUTE_PREFIX = "route:"
"""Marks keys of LLMRoutes in the queue, which otherwise holds keys of LLMDeployments."""

TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def about(key: str, kind: str = "LLMDeployment", reason: str = "") -> dict[str, str]:
    """Return the fields that say of which object a record speaks, for `extra` of a logging call.

    `key`: `namespace/name`, or `name` of a cluster-scoped object. Empty fields are left out.
    """
    namespace, name = split_key(key) if "/" in key else ("", key)
    fields = {"kind": kind, "namespace": namespace, "object": name, "reason": reason}
    return {field: value for field, value in fields.items() if value}


def about_key(key: str, reason: str = "") -> dict[str, str]:
    """Return the same for a key of the work queue."""
    found = key.removeprefix(ROUTE_PREFIX)
    return about(found, "LLMDeployment" if found == key else "LLMRoute", reason)


def configure_logging(level: str, style: LogFormat) -> None:
    """Send the log to standard error.

    `level`: name of a level of Python's logging. Raises ValueError if there is no such level.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(json_formatter() if style == "json" else logging.Formatter(TEXT))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Kopf says a line for every event of every object.
    logging.getLogger("kopf").setLevel(logging.WARNING)


def json_formatter() -> logging.Formatter:
    """Return what makes one JSON object of a record.

    It has `time` (RFC 3339, UTC), `level`, `logger`, `message`, and what the record is about (`about`). A stack trace
    stands in `exc_info`.
    """
    formatter = JsonFormatter(
        "{asctime}{levelname}{name}{message}",
        style="{",
        rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
        datefmt="%Y-%m-%dT%H:%M:%SZ",
    )
    formatter.converter = time.gmtime
    return formatter
