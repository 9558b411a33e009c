"""Counters of dollars that only grow, from lines that are told again and again."""

from modelyard.core.ledger.book import Holding
from modelyard.core.ledger.settle import Line
from modelyard.core.ledger.usage import spend_key
from modelyard.runtime.metrics import REGISTRY
from modelyard.runtime.spendmetrics import SpendMetrics, add_lines

T = 1_800_000_000


def value(name, **labels):
    return REGISTRY.get_sample_value(name, labels) or 0.0


def line(tenant, target, dollars):
    return T, Line(spend_key(tenant, "n/r@route", target), dollars=dollars)


def test_dollars_only_grow():
    metrics, own = SpendMetrics(), {"kind": "Own", "target": "metrics/own"}

    def total():
        return value("modelyard_spend_dollars_total", **own)

    metrics.tell(add_lines([line("a", "metrics/own", 4.0)]), ())
    assert total() == 0, "what an earlier process has told"
    metrics.tell(add_lines([line("a", "metrics/own", 3.0), line("b", "metrics/own", 2.0)]), ())
    assert total() == 1.0, "shares move, the sum grows"
    metrics.tell(add_lines([line("a", "metrics/own", 3.0), line("b", "metrics/own", 2.0)]), ())
    metrics.tell(add_lines([(T + 3600, line("a", "metrics/own", 0.5)[1])]), ())
    assert total() == 1.5, "an hour that was archived takes nothing away"


def test_what_is_held_goes_with_its_deployment():
    metrics = SpendMetrics()
    labels = {"namespace": "metrics", "deployment": "held"}
    pods = [Holding("metrics/held", T, 2, 3.0, 0.0), Holding("metrics/held", T, 2, None, 0.0)]
    metrics.tell(add_lines(()), pods)
    assert value("modelyard_gpu_allocation", **labels) == 4
    assert value("modelyard_gpu_hourly_cost", **labels) == 3.0
    metrics.tell(add_lines(()), ())
    assert REGISTRY.get_sample_value("modelyard_gpu_allocation", labels) is None


def test_what_was_spent_on_leaves_when_it_is_gone_and_its_hours_are_archived():
    metrics, own = SpendMetrics(), {"kind": "Own", "target": "metrics/gone"}
    metrics.tell(add_lines([line("a", "metrics/gone", 1.0)]), (), {"metrics/gone"})
    metrics.tell(add_lines([line("a", "metrics/gone", 2.0)]), (), {"metrics/gone"})
    metrics.tell(add_lines([line("a", "metrics/gone", 2.0)]), (), set())
    assert REGISTRY.get_sample_value("modelyard_spend_dollars_total", own) == 1.0, "it stands in an open hour"
    metrics.tell(add_lines(()), (), {"metrics/gone"})
    assert REGISTRY.get_sample_value("modelyard_spend_dollars_total", own) == 1.0, "it may spend again"
    metrics.tell(add_lines(()), (), set())
    assert REGISTRY.get_sample_value("modelyard_spend_dollars_total", own) is None
