"""Small builders for shapes that occur all over Envoy's API."""

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]
"""A message in protobuf's JSON form."""


def typed(message: str, value: Mapping[str, Any] | None = None) -> Json:
    """Return a message for an `Any` field, by its full name."""
    return {"@type": f"type.googleapis.com/{message}", **(value or {})}


def extension(name: str, message: str, value: Mapping[str, Any] | None = None) -> Json:
    """Return an extension (a filter, a policy, a logger) with its configuration."""
    return {"name": name, "typed_config": typed(message, value)}


def seconds(value: float) -> str:
    """Return a duration in protobuf's JSON form."""
    return f"{value:.9f}".rstrip("0").rstrip(".") + "s"


def socket_address(address: str, port: int) -> Json:
    """Return a TCP address."""
    return {"socket_address": {"address": address, "port_value": port}}


def set_header(key: str, value: str) -> Json:
    """Return a header option that overwrites. `%` starts a command operator of Envoy unless it is doubled."""
    return {
        "header": {"key": key, "value": value},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }


def ads() -> Json:
    """Return the config source "the delta ADS stream"."""
    return {"ads": {}, "resource_api_version": "V3"}
