"""Small builders for shapes that occur all over Envoy's API."""

from collections.abc import Mapping
from typing import Any

CONTROL_PLANE = "control_plane"
"""Name of the static cluster of the operator: configuration comes from it, and it is asked about limits."""

FIRST_NAME_SECONDS = 0.05
"""How long Envoy keeps further names back after it has asked for its first sleeping model, once in its life: nothing
beside a cold start."""

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


def on_demand() -> Json:
    """Return the config source of clusters that requests wait for: a delta stream of its own, which stays silent.

    Over ADS, Envoy gives up such a cluster after 15 s, whatever the route's hold is, and never asks for it again. Here
    the limit of the first fetch ends nothing but the wait of further names for the first one's answer.
    """
    return {
        "api_config_source": {
            "api_type": "DELTA_GRPC",
            "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": CONTROL_PLANE}}],
        },
        "resource_api_version": "V3",
        "initial_fetch_timeout": seconds(FIRST_NAME_SECONDS),
    }


def ads(*, patient: bool = False) -> Json:
    """Return the config source "the delta ADS stream".

    By default Envoy goes on without what has not come within 15 s (`initial_fetch_timeout`), until it comes. With
    `patient` it waits for as long as it takes. An operator may end between two resources that belong together, and a
    listener without routes is Ready and refuses every request.
    """
    source: Json = {"ads": {}, "resource_api_version": "V3"}
    return {**source, "initial_fetch_timeout": seconds(0)} if patient else source
