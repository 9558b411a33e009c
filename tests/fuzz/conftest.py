"""How much is tried, and what is said of it at the end."""

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings

from tests.apiserver.conftest import api_server, applied, kinds, namespace
from tests.gateway.conftest import gateway, make_backend

__all__ = ["api_server", "applied", "gateway", "kinds", "make_backend", "namespace"]

EFFORT = int(os.environ.get("MODELYARD_FUZZ", "1"))
"""How many times as much as in CI is tried (`make fuzz`); beyond 1 every run tries something else."""

TRIED: Counter[str] = Counter()
"""Inputs by the name of the test."""

settings.register_profile(
    "fuzz",
    deadline=None,
    derandomize=EFFORT == 1,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


def tries(count: int) -> settings:
    """Settings of a property that tries so many inputs in CI."""
    return settings(settings.get_profile("fuzz"), max_examples=count * EFFORT)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not TRIED:
        return
    terminalreporter.section("fuzz")
    for name, count in sorted(TRIED.items()):
        terminalreporter.write_line(f"{count:8d} inputs tried: {name}")
    failed = [item for item in terminalreporter.stats.get("failed", ()) if "tests/fuzz/" in item.nodeid]
    terminalreporter.write_line(f"{TRIED.total():8d} inputs tried in all, {len(failed)} failures")
