"""The Lua scripts of the gateway, as text for Envoy's configuration."""

from functools import cache
from importlib.resources import files


@cache
def request_scan() -> str:
    """Return the script that finds the model in a request."""
    return _read("json.lua") + _read("request_scan.lua")


@cache
def model_rewrite() -> str:
    """Return the script that writes the engine's model name into the body."""
    return _read("json.lua") + _read("model_rewrite.lua")


def _read(name: str) -> str:
    return (files("modelyard.render.envoy") / "lua" / name).read_text(encoding="utf-8")
