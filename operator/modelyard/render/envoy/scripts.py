"""The Lua scripts of the gateway, as text for Envoy's configuration."""

from functools import cache
from importlib.resources import files


@cache
def request_scan() -> str:
    """Return the script that finds out who calls and which model is asked for."""
    return _read("json.lua") + _read("sha256.lua") + _read("tenants.lua") + _read("request_scan.lua")


@cache
def engine_request() -> str:
    """Return the script that gives an attempt the engine's model name and path."""
    return _read("json.lua") + _read("model_rewrite.lua") + _read("engine_request.lua")


@cache
def provider_request() -> str:
    """Return the script that gives an attempt the provider's model name and path, and takes away everything else."""
    return _read("json.lua") + _read("model_rewrite.lua") + _read("provider_request.lua")


@cache
def provider_key() -> str:
    """Return the script that refuses an attempt whose provider has no key."""
    return _read("provider_key.lua")


@cache
def leave(serves_on: int, patience: int) -> str:
    """Return the script that says when an Envoy may end, `serves_on` seconds after it was asked at the earliest.

    Without requests and without an answer of the operator for `patience` seconds, it may end as well.
    """
    return f"local SERVES_ON, PATIENCE = {serves_on}, {patience}\n{_read('leave.lua')}"


def _read(name: str) -> str:
    """Return a script without comments and indentation: one of them is part of every cluster's configuration."""
    text = (files("modelyard.render.envoy") / "lua" / name).read_text(encoding="utf-8")
    lines = (line.strip() for line in text.splitlines())
    return "".join(f"{line}\n" for line in lines if line and not line.startswith("--"))
