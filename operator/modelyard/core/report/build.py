"""From a snapshot to the report of a plan: the decision of the cluster, and what it costs and changes."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.meta import Refusal
from modelyard.core.choice import expected_shape
from modelyard.core.plan import DeploymentPlan, Placement
from modelyard.core.report.changes import PricedChange, list_changes
from modelyard.core.report.deployment import Context, report_deployment
from modelyard.core.report.model import (
    CENT,
    EXIT_CODES,
    FINE,
    BudgetReport,
    DeploymentReport,
    Outcome,
    PlanReport,
    Problem,
    Totals,
)
from modelyard.core.report.room import find_missing
from modelyard.core.report.running import HOURS_PER_DAY, RunningVariant
from modelyard.core.report.settle import StatedLoad, settle
from modelyard.core.snapshot import Snapshot

PLANNING_TIME = 1_767_225_600.0
"""Unix seconds of a plan without a cluster, 2026-01-01T00:00:00Z: the decision asks what time it is, and the same
manifests must give the same report on every day."""

Check = Callable[[LLMDeployment, Placement], Refusal | None]
"""Returns why the workloads of a placement cannot be built, None if they can."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked."""

    snapshot: Snapshot
    """Every deployment that will be: those of the files, and those that run beside them and are known in full."""
    planned: frozenset[str]
    """Deployments that the files name."""
    loads: Mapping[str, StatedLoad]
    context: Context
    running: Mapping[str, tuple[RunningVariant, ...]] | None = None
    """What runs now, by `namespace/name`; None: not asked."""
    pruned: frozenset[str] = frozenset()
    """Deployments that run and that go."""
    previous: Mapping[str, LLMDeployment] = field(default_factory=dict)
    """The specs that run now, where they are known."""
    budget: Decimal | None = None
    """US dollars per day."""
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    check: Check | None = None
    now: float = PLANNING_TIME


def state_load(deployment: LLMDeployment) -> StatedLoad:
    """Return the load that a spec states."""
    load = deployment.spec.load
    shape = expected_shape(deployment)
    if load is None or load.requests_per_minute is None:
        return StatedLoad(shape)
    return StatedLoad(shape, float(load.requests_per_minute), "Spec")


def build_report(question: Question) -> PlanReport:
    """Return the report."""
    snapshot = question.snapshot
    context = replace(question.context, inventory=snapshot.inventory)
    loads = {
        key: question.loads.get(key) or state_load(deployment)
        for key, deployment in snapshot.deployments.items()
    }
    decided, memory = settle(snapshot, loads, question.now, context.policy)
    plans = {
        key: _check(plan, snapshot.deployments[key], question.check)
        for key, plan in decided.deployments.items()
    }
    missing = find_missing(plans, snapshot.children, snapshot.inventory, snapshot.accelerators)
    deployments = tuple(
        report_deployment(
            snapshot.deployments[key],
            plans[key],
            memory.deployments[key],
            loads[key],
            missing.get(key, 0),
            context,
        )
        for key in sorted(question.planned)
    )
    unknown = frozenset(
        item.key for item in deployments if item.fit.verdict == "Unknown" and not item.variants
    )
    changes = list(
        list_changes(
            plans,
            question.planned,
            question.pruned,
            question.running or {},
            question.previous,
            snapshot,
            unknown,
        )
    )
    totals = _totals(question, changes)
    budget = (
        None
        if question.budget is None
        else BudgetReport(per_day=question.budget, exceeded=totals.per_day > question.budget)
    )
    outcome = _judge(question, deployments, budget)
    return PlanReport(
        outcome=outcome,
        exit_code=EXIT_CODES[outcome],
        deployments=deployments,
        changes=() if question.running is None else tuple(item.change for item in changes),
        totals=totals,
        budget=budget,
        problems=question.problems,
        notes=(*question.notes, *_note_others(changes)),
    )


def _check(plan: DeploymentPlan, deployment: LLMDeployment, check: Check | None) -> DeploymentPlan:
    """Return the plan, refused if one of its workloads cannot be built."""
    if check is None or plan.refusal is not None or plan.placement is None:
        return plan
    refusal = check(deployment, plan.placement)
    return plan if refusal is None else replace(plan, refusal=refusal)


def _totals(question: Question, changes: list[PricedChange]) -> Totals:
    per_hour = sum((item.per_hour or Decimal(0) for item in changes), Decimal(0))
    per_day = (per_hour * HOURS_PER_DAY).quantize(CENT)
    before = None
    if question.running is not None:
        states = [item.change.before for item in changes if item.change.before is not None]
        before = sum((state.per_day or Decimal(0) for state in states), Decimal(0)).quantize(CENT)
    return Totals(
        per_hour=per_hour.quantize(FINE),
        per_day=per_day,
        before_per_day=before,
        change_per_day=None if before is None else per_day - before,
        unpriced=tuple(
            f"{item.change.namespace}/{item.change.name}" for item in changes if item.per_hour is None
        ),
    )


def _judge(
    question: Question, deployments: tuple[DeploymentReport, ...], budget: BudgetReport | None
) -> Outcome:
    if any(problem.severity == "Error" for problem in question.problems):
        return "Invalid"
    if not all(deployment.runs for deployment in deployments):
        return "DoesNotFit"
    return "OverBudget" if budget is not None and budget.exceeded else "Ok"


def _note_others(changes: list[PricedChange]) -> Iterator[str]:
    others = [
        f"{item.change.namespace}/{item.change.name}"
        for item in changes
        if not item.change.in_files and item.change.kind != "Removed"
    ]
    if others:
        names = ", ".join(others[:10]) + (f" and {len(others) - 10} more" if len(others) > 10 else "")
        yield f"running, in none of the files, and staying (--prune would count them as removed): {names}"
