"""Figures of tenants that are gone go with them."""

from modelyard.core.limits.account import Limits
from modelyard.runtime.limits import LimitBook
from modelyard.runtime.metrics import REGISTRY

TENANT = "goes"


def figures():
    refused = {"tenant": TENANT, "limit": "requests"}
    return (
        REGISTRY.get_sample_value("modelyard_limited_requests_total", refused),
        REGISTRY.get_sample_value("modelyard_limited_tokens_total", {"tenant": TENANT}),
    )


def test_series_go_with_the_tenant():
    book = LimitBook(lambda: 1_000_000_000)
    book.set_limits({TENANT: Limits(requests=1, tokens=None)})
    verdicts = [book.admit(TENANT) for _ in range(3)]
    book.charge(TENANT, 7)
    refused = sum(verdict.refused_by is not None for verdict in verdicts)
    assert refused > 0
    assert figures() == (refused, 7)
    book.set_limits({})
    assert figures() == (None, None)
