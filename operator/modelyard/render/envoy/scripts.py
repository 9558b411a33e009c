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
    """Return a script without comments and indentation: one of them is part of every cluster's configuration."""
    text = (files("modelyard.render.envoy") / "lua" / name).read_text(encoding="utf-8")
    lines = (line.strip() for line in text.splitlines())
    return "".join(f"{line}\n" for line in lines if line and not line.startswith("--"))
