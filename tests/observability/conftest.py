"""Fixtures: a real Prometheus and its promtool, built from their Go module; whether dashboards can be drawn."""

from pathlib import Path

import pytest

from dev.browser import BrowserMissingError, ensure_chromium
from dev.cluster.binaries import PROMETHEUS, ensure_module
from dev.dashboards.page import ensure_page

ALERTS = sorted((Path(__file__).parents[2] / "charts" / "modelyard" / "alerts").glob("*.yaml"))


@pytest.fixture(scope="session")
def programs() -> Path:
    """Return the folder with `prometheus` and `promtool`."""
    return ensure_module(PROMETHEUS)


missing: list[str] = []
"""Why there is no browser; empty: there is one, or none was needed."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end, where it is not overlooked, that no browser has drawn the dashboards."""
    if missing:
        terminalreporter.section("DASHBOARDS: NOT DRAWN IN A BROWSER", red=True, bold=True)
        terminalreporter.line(missing[0])


@pytest.fixture(scope="session")
def drawable() -> bool:
    """Whether there is a browser. It is installed where that is possible, and must be; so is the page."""
    try:
        ensure_chromium()
    except BrowserMissingError as error:
        missing.append(str(error))
        return False
    ensure_page(print)
    return True
