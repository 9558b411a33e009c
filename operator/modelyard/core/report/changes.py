"""What becomes of every deployment: those of the files, those that run beside them, and those that go."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.meta import split_key, wire
from modelyard.core.plan import DeploymentPlan
from modelyard.core.report.model import Change, ChangeKind, State
from modelyard.core.report.running import (
    HOURS_PER_DAY,
    RunningVariant,
    count_planned,
    price_planned,
    state_planned,
    state_running,
)
from modelyard.core.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class PricedChange:
    """What becomes of one deployment."""

    change: Change
    per_hour: Decimal | None
    """US dollars afterwards; None: not known."""


def list_changes(
    plans: Mapping[str, DeploymentPlan],
    planned: frozenset[str],
    pruned: frozenset[str],
    running: Mapping[str, tuple[RunningVariant, ...]],
    previous: Mapping[str, LLMDeployment],
    snapshot: Snapshot,
    unknown: frozenset[str],
) -> Iterator[PricedChange]:
    """Yield what becomes of every deployment, in the order of their keys.

    `unknown` are those of which it is not known on what they would run.
    """
    for key in sorted({*planned, *plans, *running}):
        before = state_running(running[key], snapshot.accelerators) if key in running else None
        plan = plans.get(key)
        refused = plan is not None and plan.refusal is not None
        after, per_hour = before, _hourly(before)
        if key in pruned:
            after, per_hour = None, Decimal(0)
        elif plan is not None and not refused:
            after, per_hour = state_planned(plan), price_planned(count_planned(plan))
        elif before is None:
            # Refused, and nothing runs.
            per_hour = None if key in unknown else Decimal(0)
        fields = compare_specs(previous.get(key), snapshot.deployments.get(key)) if key in planned else ()
        kind: ChangeKind = _kind(before, after, fields)
        if key in pruned or refused:
            kind = "Removed" if key in pruned else "Refused"
        namespace, name = split_key(key)
        change = Change(
            namespace=namespace,
            name=name,
            kind=kind,
            in_files=key in planned,
            before=before,
            after=after,
            fields=fields,
        )
        yield PricedChange(change, per_hour)


def compare_specs(before: LLMDeployment | None, after: LLMDeployment | None) -> tuple[str, ...]:
    """Return the paths of the fields that differ, two levels deep, such as `model.source`."""
    if before is None or after is None:
        return ()
    return tuple(sorted(_differ(wire(before.spec), wire(after.spec), depth=2)))


def _differ(before: Mapping[str, Any], after: Mapping[str, Any], depth: int) -> Iterator[str]:
    for name in before.keys() | after.keys():
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        if depth > 1 and isinstance(old, dict) and isinstance(new, dict):
            yield from (f"{name}.{inner}" for inner in _differ(old, new, depth - 1))
        else:
            yield name


def _kind(before: State | None, after: State | None, fields: tuple[str, ...]) -> ChangeKind:
    if before is None or after is None:
        return "Added" if before is None else "Removed"
    return "Changed" if fields or set(before.variants) != set(after.variants) else "Unchanged"


def _hourly(state: State | None) -> Decimal | None:
    return None if state is None or state.per_day is None else state.per_day / HOURS_PER_DAY
