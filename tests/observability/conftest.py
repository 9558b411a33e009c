"""Fixtures: a real Prometheus and its promtool, built from their Go module."""

from pathlib import Path

import pytest

from dev.cluster.binaries import PROMETHEUS, ensure_module

ALERTS = sorted((Path(__file__).parents[2] / "charts" / "modelyard" / "alerts").glob("*.yaml"))


@pytest.fixture(scope="session")
def programs() -> Path:
    """Return the folder with `prometheus` and `promtool`."""
    return ensure_module(PROMETHEUS)
