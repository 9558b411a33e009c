"""What an LLMDeployment's status says of the last decision, as text."""

import re
from collections.abc import Iterator, Sequence

from modelyard.api.llmdeployment import PlacementStatus, VariantStatus
from modelyard.api.meta import Condition
from modelyard.cli.planwords import clean
from modelyard.core.overview.explanation import EventRow, ExplainedSize, ExplainReport
from modelyard.core.variants import variant_label

_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


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
    yield from _pods(report)
    yield ""
    if report.history:
        yield "history"
        yield from columns(
            [
                (
                    event.time,
                    f"{event.from_replicas} -> {event.to_replicas}",
                    event.reason,
                    clean(event.message),
                )
                for event in report.history
            ]
        )
    else:
        yield "history    no change of size yet"
    if report.events:
        yield ""
        yield "events"
        yield from columns([_event(event) for event in report.events])
    for note in report.notes:
        yield ""
        yield f"not shown  {clean(note)}"


def _pods(report: ExplainReport) -> Iterator[str]:
    if not report.pods:
        return
    yield ""
    yield "pods"
    yield from columns(
        [
            (
                clean(pod.name),
                pod.state,
                clean(pod.node) or "no node",
                f"{pod.restarts} restart{'' if pod.restarts == 1 else 's'}",
                clean(pod.why),
            )
            for pod in report.pods
        ]
    )


def _event(event: EventRow) -> tuple[str, ...]:
    times = f" ({event.count} times)" if event.count > 1 else ""
    # Whoever may write Events in a namespace chooses all words of one.
    words = (clean(item) for item in (event.time, event.severity, event.reason, event.about))
    return (*words, f"{clean(event.message)}{times}")


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
    label = variant_label(placement.class_name, placement.count, spot=False, nodes=placement.nodes)
    yield f"runs on    {label}: {clean(placement.message)}"
    yield from columns([_variant(item) for item in placement.variants])


def _variant(item: VariantStatus) -> tuple[str, ...]:
    label = variant_label(item.class_name, item.count, spot=item.purchase == "Spot", nodes=item.nodes)
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
