"""The dashboards in the chart are those that `python -m dev.dashboards` writes, and sound."""

import json
import re

import pytest

from dev.dashboards.__main__ import files
from modelyard.runtime import metrics
from modelyard.runtime.fleetmetrics import GAUGES
from tests.observability.conftest import ALERTS

FILES = files()
DASHBOARDS = {path.stem: json.loads(text) for path, text in FILES.items()}
OWN = re.compile(r"\bmodelyard_[a-z0-9_]+")


def panels(name):
    return [panel for panel in DASHBOARDS[name]["panels"] if panel["type"] != "row"]


def expressions():
    return [target["expr"] for name in DASHBOARDS for panel in panels(name) for target in panel["targets"]]


def exposed():
    """Names of all series that the operator may expose."""
    families = {family.name: family.type for family in metrics.REGISTRY.collect()}
    names = set(GAUGES)
    for name, kind in families.items():
        ends = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}.get(kind, ("",))
        names |= {f"{name}{end}" for end in ends}
    return names


def test_there_are_five():
    assert DASHBOARDS.keys() == {"fleet", "cost", "model", "gateway", "operator"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_are_up_to_date(path):
    assert path.read_text(encoding="utf-8") == FILES[path], "run `python -m dev.dashboards`"


def test_every_metric_that_is_asked_for_exists():
    text = "\n".join([*expressions(), *(path.read_text(encoding="utf-8") for path in ALERTS)])
    used = {name for name in OWN.findall(text) if f"envoy_{name}" not in text}
    assert used - exposed() == set()


@pytest.mark.parametrize("name", DASHBOARDS)
def test_nothing_is_tied_to_an_installation(name):
    board = DASHBOARDS[name]
    text = json.dumps(board)
    assert "modelyard-system" not in text
    sources = {json.dumps(panel["datasource"], sort_keys=True) for panel in panels(name)}
    assert sources == {json.dumps({"type": "prometheus", "uid": "${datasource}"}, sort_keys=True)}
    assert board["templating"]["list"][0]["name"] == "datasource"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_have_units_titles_and_do_not_overlap(name):
    taken = set()
    for panel in panels(name):
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARDS[name]["panels"]}) == len(DASHBOARDS[name]["panels"])
