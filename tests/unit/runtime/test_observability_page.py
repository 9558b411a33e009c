"""docs/observability.md lists exactly the metrics that there are. `make golden` writes its table anew."""

import os
import re
from pathlib import Path

import pytest
from prometheus_client import Counter
from prometheus_client.metrics import MetricWrapperBase

from modelyard.runtime import metrics
from modelyard.runtime.fleetmetrics import GAUGES

PAGE = Path(__file__).parents[3] / "docs" / "observability.md"
BEGIN, END = "<!-- metrics: begin -->\n", "<!-- metrics: end -->"

UNITS = {
    "seconds": "seconds",
    "timestamp_seconds": "Unix time",
    "dollars": "US dollars",
    "dollars_per_hour": "US dollars per hour",
    "hourly_cost": "US dollars per hour",
    "dollars_per_million_tokens": "US dollars per 1M tokens",
    "requests_per_second": "requests/s",
    "ratio": "0 to 1 or more",
    "share": "0 to 1",
    "gap": "0 to 1 or more",
    "factor": "1 is as worked out",
    "uncertainty": "0 to 1 or more",
}
"""By the end of a metric's name; all else is a count."""


def unit(name):
    fitting = [end for end in UNITS if name.removesuffix("_total").endswith(f"_{end}")]
    return UNITS[max(fitting, key=len)] if fitting else "count"


def rows():
    """One row for each metric: name as it is exposed, type, labels, unit and meaning."""
    found = {name: ("gauge", labels, text) for name, (text, labels) in GAUGES.items()}
    for item in vars(metrics).values():
        if isinstance(item, MetricWrapperBase):
            name = f"{item._name}_total" if isinstance(item, Counter) else item._name
            found[name] = (item._type, item._labelnames, item._documentation)
    return [
        f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {unit(name)} | {text} |"
        for name, (kind, labels, text) in sorted(found.items())
    ]


def test_the_page_lists_every_metric_and_no_other():
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    table, after = rest.split(END)
    wanted = "\n".join(
        ["| metric | type | labels | unit | meaning |", "| --- | --- | --- | --- | --- |", *rows(), ""]
    )
    if os.environ.get("MODELYARD_UPDATE_GOLDEN"):
        PAGE.write_text(f"{before}{BEGIN}{wanted}{END}{after}", encoding="utf-8")
        return
    assert table.splitlines() == wanted.splitlines(), "run `make golden`, and read the difference"


def test_every_metric_that_is_registered_is_listed():
    """Also those that a module of its own might declare."""
    listed = {row.split("`")[1].removesuffix("_total") for row in rows()}
    registered = {family.name for family in metrics.REGISTRY.collect()}
    assert registered - listed == {name for name in registered if name.startswith("process_")}
    assert registered & listed


@pytest.mark.parametrize("name", [row.split("`")[1] for row in rows()])
def test_names_are_as_prometheus_asks(name):
    """https://prometheus.io/docs/practices/naming/."""
    assert re.fullmatch(r"modelyard_[a-z0-9]+(_[a-z0-9]+)*", name)
    assert not re.search(r"_(milliseconds|minutes|hours|percent)(_|$)", name)
