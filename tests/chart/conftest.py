"""Helm without a cluster."""

import pytest

from dev.charts.helm import Helm


@pytest.fixture
def helm(tmp_path) -> Helm:
    return Helm(tmp_path)
