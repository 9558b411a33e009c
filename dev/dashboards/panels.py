"""The JSON of Grafana's dashboards.

https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Json = dict[str, Any]

SCHEMA_VERSION = 41
"""Of the dashboards of Grafana 12; later versions convert it when they load it, and Grafana 11 ignores what it does
not know."""
COLUMNS = 24
"""Width of Grafana's grid."""
ROW_HEIGHT = 8
"""Height of a panel, in Grafana's units of 30 pixels."""
STAT_HEIGHT = 4

DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
"""What the variable of that name says: nothing is tied to an installation."""

ESCAPES = (("_2e", "."), ("_3a", ":"), ("_40", "@"))
"""Codes of `render/envoy/names.py` that names of models, providers and routes have, and what they stand for."""

Kind = Literal["timeseries", "stat", "table", "bargauge", "state-timeline"]


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression."""

    expression: str
    legend: str = ""
    """Grafana's template of a series' name, `{{label}}`."""
    least_step: str = ""
    """Least distance of two points, such as `1m`; empty: the data source's."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel."""

    title: str
    queries: Sequence[Query]
    unit: str = "short"
    """One of Grafana's unit ids (packages/grafana-data/src/valueFormats/categories.ts)."""
    description: str = ""
    kind: Kind = "timeseries"
    width: int = 12
    """Of 24 columns."""
    steps: Sequence[tuple[str, float | None]] = (("green", None),)
    """Colours from a value on; None: from the lowest."""
    stacked: bool = False
    counted: bool = False
    """Whether the values are events within a step: bars, not a line between them."""
    soft_max: float | None = None
    """Where the axis ends while nothing is above; without it an axis over zeros alone goes to 100."""
    highest: float | None = None
    """Where the axis or the bar ends."""
    long_names: bool = False
    """Whether the names of series need the room that the highest values take in the legend."""
    escaped: bool = False
    """Whether names of series are those of Envoy's statistics, in which some characters are written as codes."""
    absent: str = ""
    """What is said where there is no data; empty: just that."""
    words: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    """Words and colours for values that stand for a state."""
    hidden: Sequence[str] = ()
    """Labels that a table does not show."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Titles of a table's columns."""

    @property
    def height(self) -> int:
        """In Grafana's units."""
        return STAT_HEIGHT if self.kind == "stat" else ROW_HEIGHT


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice above the dashboard, read from the labels of a metric."""

    name: str
    query: str
    """`label_values(...)`."""
    label: str
    many: bool = True
    """Whether several values, and all of them, may be chosen."""


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard. `rows` are titles and panels, from top to bottom."""

    name: str
    title: str
    description: str
    rows: Sequence[tuple[str, Sequence[Panel]]]
    variables: Sequence[Variable] = field(default_factory=tuple)


def build(dashboard: Dashboard) -> Json:
    """Return the JSON of a dashboard."""
    return {
        "annotations": {"list": []},
        "description": dashboard.description,
        "editable": True,
        "fiscalYearStartMonth": 0,
        "graphTooltip": 1,
        "links": [
            {
                "asDropdown": True,
                "icon": "external link",
                "includeVars": True,
                "keepTime": True,
                "tags": ["modelyard"],
                "targetBlank": False,
                "title": "Modelyard",
                "tooltip": "",
                "type": "dashboards",
            }
        ],
        "panels": list(_lay_out(dashboard.rows)),
        "refresh": "30s",
        "schemaVersion": SCHEMA_VERSION,
        "tags": ["modelyard"],
        "templating": {"list": [_datasource(), *(_variable(item) for item in dashboard.variables)]},
        "time": {"from": "now-3h", "to": "now"},
        "timepicker": {},
        "timezone": "",
        "title": dashboard.title,
        "uid": _identify(dashboard.name),
        "version": 1,
    }


def _identify(name: str) -> str:
    """Return a stable id, so that links and new versions find the dashboard."""
    return f"modelyard-{name}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _datasource() -> Json:
    return {
        "hide": 0,
        "label": "Data source",
        "name": "datasource",
        "options": [],
        "query": "prometheus",
        "refresh": 1,
        "regex": "",
        "type": "datasource",
    }


def _variable(variable: Variable) -> Json:
    everything = {"allValue": ".*", "current": {"text": ["All"], "value": ["$__all"]}}
    return {
        **(everything if variable.many else {}),
        "datasource": DATASOURCE,
        "hide": 0,
        "includeAll": variable.many,
        "label": variable.label,
        "multi": variable.many,
        "name": variable.name,
        "options": [],
        # Read again whenever the time range changes: objects come and go.
        "refresh": 2,
        "query": {"query": variable.query, "refId": variable.name, "qryType": 1},
        "regex": "",
        "sort": 1,
        "type": "query",
    }


def _lay_out(rows: Sequence[tuple[str, Sequence[Panel]]]) -> Iterable[Json]:
    """Yield rows and panels with their places."""
    number, y = 1, 0
    for title, panels in rows:
        yield {
            "collapsed": False,
            "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": y},
            "id": number,
            "panels": [],
            "title": title,
            "type": "row",
        }
        number, y, x, tallest = number + 1, y + 1, 0, 0
        for panel in panels:
            if x + panel.width > COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            place = {"h": panel.height, "w": panel.width, "x": x, "y": y}
            yield _panel(panel, number, place)
            number, x, tallest = number + 1, x + panel.width, max(tallest, panel.height)
        y += tallest


def _panel(panel: Panel, number: int, place: Json) -> Json:
    instant = panel.kind in {"stat", "table", "bargauge"}
    body: Json = {
        "datasource": DATASOURCE,
        "description": panel.description,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides(panel)},
        "gridPos": place,
        "id": number,
        "options": _options(panel),
        "targets": [
            {
                "datasource": DATASOURCE,
                "editorMode": "code",
                "expr": query.expression,
                "format": "table" if panel.kind == "table" else "time_series",
                "instant": instant,
                "interval": query.least_step,
                "legendFormat": query.legend or "__auto",
                "range": not instant,
                "refId": chr(ord("A") + position),
            }
            for position, query in enumerate(panel.queries)
        ],
        "title": panel.title,
        "type": panel.kind,
    }
    if panel.kind == "table":
        excluded = dict.fromkeys(
            ("Time", "__name__", "job", "instance", "pod", "endpoint", *panel.hidden), True
        )
        renamed = {"excludeByName": excluded, "indexByName": {}, "renameByName": dict(panel.renamed)}
        body["transformations"] = [{"id": "organize", "options": renamed}]
    if panel.escaped:
        body["transformations"] = [
            {"id": "renameByRegex", "options": {"regex": f"/{code}/g", "renamePattern": character}}
            for code, character in ESCAPES
        ]
    return body


def _defaults(panel: Panel) -> Json:
    steps = [{"color": color, "value": value} for color, value in panel.steps]
    mode = "palette-classic" if panel.kind == "timeseries" else "thresholds"
    return {
        "color": {"mode": mode},
        "custom": _lines(panel) if panel.kind == "timeseries" else {},
        "mappings": _mappings(panel.words),
        "min": 0,
        "thresholds": {"mode": "absolute", "steps": steps},
        "unit": panel.unit,
        **({} if panel.highest is None else {"max": panel.highest}),
        **({"noValue": panel.absent} if panel.absent else {}),
    }


def _overrides(panel: Panel) -> list[Json]:
    """Return what differs for some columns of a table: words for states have their colours, other texts none."""
    if panel.kind != "table" or not panel.words:
        return []
    colored = {"id": "custom.cellOptions", "value": {"type": "color-text"}}
    return [{"matcher": {"id": "byName", "options": "Value"}, "properties": [colored]}]


def _lines(panel: Panel) -> Json:
    """Return how series are drawn."""
    stacked = panel.stacked or panel.counted
    look = {
        "drawStyle": "bars" if panel.counted else "line",
        "fillOpacity": 80 if panel.counted else 20 if stacked else 0,
        "lineWidth": 1,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"group": "A", "mode": "normal" if stacked else "none"},
    }
    return look | ({} if panel.soft_max is None else {"axisSoftMax": panel.soft_max})


def _mappings(words: Mapping[int, tuple[str, str]]) -> list[Json]:
    if not words:
        return []
    options = {
        str(value): {"color": color, "index": index, "text": text}
        for index, (value, (text, color)) in enumerate(words.items())
    }
    return [{"options": options, "type": "value"}]


def _options(panel: Panel) -> Json:
    reduced = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    if panel.kind == "timeseries":
        return {
            "legend": {
                "calcs": ["lastNotNull"] if panel.long_names else ["lastNotNull", "max"],
                "displayMode": "table",
                # Below the plot there is room for three lines, and the rest has to be scrolled to.
                "placement": "right",
                "showLegend": True,
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    if panel.kind == "stat":
        return {"colorMode": "value", "graphMode": "none", "reduceOptions": reduced, "textMode": "auto"}
    if panel.kind == "bargauge":
        return {"displayMode": "basic", "orientation": "horizontal", "reduceOptions": reduced}
    if panel.kind == "state-timeline":
        return {
            "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
            "mergeValues": True,
            "rowHeight": 0.9,
            "showValue": "auto",
            "tooltip": {"mode": "single", "sort": "none"},
        }
    return {"cellHeight": "sm", "showHeader": True}
