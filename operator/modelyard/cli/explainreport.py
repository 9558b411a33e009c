"""What an LLMDeployment's status says of the last decision, as values and as text."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

from pydantic import Field

from modelyard.api.llmdeployment import (
    CostStatus,
    LLMDeployment,
    PlacementStatus,
    ScalingEvent,
    VariantStatus,
)
from modelyard.api.meta import ApiModel, Condition
from modelyard.cli.planwords import clean

SCHEMA_VERSION: Final = "1"
"""Raised when a field is renamed, removed or changes its meaning. A new field leaves it as it is."""

_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class ExplainedSize(ApiModel):
    """The last decision about the size."""

    replicas: int
    reason: str
    message: str = ""
    numbers: Mapping[str, str] = Field(default_factory=dict)
    """Figures behind it, by name, as decimal strings; empty where the operator writes none."""


class ExplainReport(ApiModel):
    """The last decision about a deployment, and what is of it."""

    version: str = SCHEMA_VERSION
    namespace: str
    name: str
    model: str
    source: str
    mode: Literal["Active", "Advise", "External", "Fixed", "Suspended"]
    minimum: int
    maximum: int
    replicas: int
    """Pods that are not on their way out."""
    ready_replicas: int
    current: bool
    """Whether the status is of the newest spec."""
    size: ExplainedSize | None = None
    """Absent before the first decision."""
    history: tuple[ScalingEvent, ...] = ()
    """Changes of size, the newest last."""
    placement: PlacementStatus | None = None
    cost: CostStatus | None = None
    conditions: tuple[Condition, ...] = ()


def build_explanation(deployment: LLMDeployment, numbers: Mapping[str, str]) -> ExplainReport:
    """Return what the object says. `numbers`: the figures behind the last decision."""
    spec, status, scaling = deployment.spec, deployment.status, deployment.spec.scaling
    fixed = spec.replicas or 0
    decided = status.scaling
    return ExplainReport(
        namespace=deployment.metadata.namespace,
        name=deployment.metadata.name,
        model=status.model or deployment.served_name,
        source=spec.model.source,
        mode=_find_mode(deployment),
        minimum=fixed if scaling is None else scaling.min,
        maximum=fixed if scaling is None else scaling.max,
        replicas=status.replicas,
        ready_replicas=status.ready_replicas,
        current=status.observed_generation == deployment.metadata.generation,
        size=None
        if decided is None
        else ExplainedSize(
            replicas=decided.desired_replicas,
            reason=decided.reason,
            message=decided.message,
            numbers=dict(numbers),
        ),
        history=decided.history if decided is not None else (),
        placement=status.placement,
        cost=status.cost,
        conditions=status.conditions,
    )


def _find_mode(deployment: LLMDeployment) -> Literal["Active", "Advise", "External", "Fixed", "Suspended"]:
    spec = deployment.spec
    if spec.suspend:
        return "Suspended"
    if spec.scaling is None:
        return "Fixed"
    return "External" if spec.scaling.actuator == "External" else spec.scaling.mode


def format_explanation(report: ExplainReport) -> str:
    """Return the explanation for a terminal."""
    return "\n".join(line.rstrip() for line in _lines(report))


def _lines(report: ExplainReport) -> Iterator[str]:
    yield f"{clean(report.namespace)}/{clean(report.name)}: {clean(report.source)}, served as {clean(report.model)}"
    if not report.current:
        yield "the spec is newer than this status: it has not been decided about yet"
    yield ""
    if report.size is None:
        yield "no decision yet: is the operator running, and does it watch this namespace?"
    else:
        yield from _size(report, report.size)
    if report.placement is not None:
        yield ""
        yield from _placement(report.placement)
    if report.cost is not None:
        each = report.cost.per_million_tokens
        tokens = "" if each is None else f", ${each} per million tokens"
        yield f"cost       ${report.cost.per_hour}/h{tokens}"
    if report.conditions:
        yield ""
        yield "conditions"
        yield from columns(condition_rows(report.conditions))
    yield ""
    if not report.history:
        yield "history    no change of size yet"
        return
    yield "history"
    yield from columns(
        [
            (event.time, f"{event.from_replicas} -> {event.to_replicas}", event.reason, clean(event.message))
            for event in report.history
        ]
    )


def _size(report: ExplainReport, size: ExplainedSize) -> Iterator[str]:
    modes = {
        "Active": f"between {report.minimum} and {report.maximum}",
        "Advise": f"advice only, between {report.minimum} and {report.maximum}",
        "External": f"an outside autoscaler sets it, between {report.minimum} and {report.maximum}",
        "Fixed": "spec.replicas",
        "Suspended": "suspend is true",
    }
    yield f"size       {size.replicas} ({modes[report.mode]}); {report.ready_replicas} of {report.replicas} pods serve"
    yield f"reason     {size.reason}: {clean(size.message)}"
    if size.numbers:
        yield "numbers"
        yield from columns([(say(name), clean(value)) for name, value in size.numbers.items()])


def _placement(placement: PlacementStatus) -> Iterator[str]:
    yield f"runs on    {placement.count} x {placement.class_name}: {clean(placement.message)}"
    yield from columns([_variant(item) for item in placement.variants])


def _variant(item: VariantStatus) -> tuple[str, ...]:
    label = f"{item.count} x {item.class_name}{' spot' if item.purchase == 'Spot' else ''}"
    return label, f"{item.ready_replicas} of {item.replicas} serve", clean(item.deployment)


def condition_rows(conditions: Sequence[Condition]) -> list[tuple[str, ...]]:
    """Return a row for each condition."""
    return [
        (item.type, item.status, item.reason, f"since {item.last_transition_time}", clean(item.message))
        for item in conditions
    ]


def say(name: str) -> str:
    """Return a camelCase name as words."""
    return _WORD.sub(" ", clean(name)).lower()


def columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield rows in columns; the last is not filled up."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)] if rows else []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        yield f"  {'  '.join((*cells, row[-1]))}"
