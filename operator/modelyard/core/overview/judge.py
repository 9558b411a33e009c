"""How much each object asks for attention, read from its conditions."""

from collections.abc import Mapping
from dataclasses import dataclass

from modelyard.api.llmbudget import LLMBudget
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.llmroute import LLMRoute
from modelyard.api.meta import Condition, Status
from modelyard.core.budget.status import BUDGET_EXHAUSTED, SOFT_LIMIT_REACHED, SPEND_UNKNOWN
from modelyard.core.overview.model import Level
from modelyard.core.providers import LIMIT_REACHED
from modelyard.core.reasons import Code
from modelyard.core.routestatus import PRICES_KNOWN, SPILLING
from modelyard.core.status import (
    EXTERNAL_SCALER_READY,
    METRICS_AVAILABLE,
    NAME_ACCEPTED,
    PLACEMENT_PREFERRED,
    PROGRESSING,
    READY,
    RECONCILING,
    SOURCES_INSIDE,
    STALLED,
)

NOT_DECIDED = "NotDecided"
"""Reason of an object whose spec is newer than its status. No condition has it: nothing was decided."""

_JUDGED_ALONE = frozenset({READY, PROGRESSING, STALLED, RECONCILING})
"""Conditions that levels of their own come from."""

_BAD_WHERE_TRUE = frozenset({BUDGET_EXHAUSTED, SOFT_LIMIT_REACHED, SPEND_UNKNOWN, SPILLING, LIMIT_REACHED})
"""Conditions that warn where they are True. All others warn where they are False, those to come included."""

_SERIOUS = (
    NAME_ACCEPTED,
    EXTERNAL_SCALER_READY,
    METRICS_AVAILABLE,
    PLACEMENT_PREFERRED,
    SPILLING,
    SOURCES_INSIDE,
    PRICES_KNOWN,
)
"""Of several that warn, the one that is told: the first of these, else the first of the status."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A level, and the condition that it comes from."""

    level: Level
    reason: str = ""
    message: str = ""
    since: str = ""


def judge_deployment(deployment: LLMDeployment) -> Judgement:
    """Return the level of a deployment."""
    status, spec = deployment.status, deployment.spec
    found = _by_type(status)
    ready = found.get(READY)
    if (stalled := found.get(STALLED)) is not None and stalled.status == "True":
        return _judge("Stalled", stalled)
    if (undecided := _undecided(deployment.metadata.generation, status, ready)) is not None:
        return undecided
    if ready is None:
        return _missing()
    if ready.status != "True":
        return _judge("Off" if spec.suspend or spec.replicas == 0 else "NotReady", ready)
    if (warning := _find_warning(found)) is not None:
        return _judge("Warning", warning)
    progressing = found.get(PROGRESSING)
    if progressing is not None and progressing.status == "True":
        return _judge("Changing", progressing)
    return _judge("Asleep" if ready.reason == Code.SCALED_TO_ZERO else "Healthy", ready)


def judge_route(route: LLMRoute) -> Judgement:
    """Return the level of a route."""
    found = _by_type(route.status)
    ready = found.get(READY)
    if (stalled := found.get(STALLED)) is not None and stalled.status == "True":
        return _judge("Stalled", stalled)
    if (undecided := _undecided(route.metadata.generation, route.status, ready)) is not None:
        return undecided
    if ready is None:
        return _missing()
    if ready.status != "True":
        return _judge("NotReady", ready)
    if route.status.choice is not None and not route.status.choice.target:
        choice = route.status.choice
        return Judgement("NotReady", choice.reason, choice.message, choice.since)
    if (warning := _find_warning(found)) is not None:
        return _judge("Warning", warning)
    return _judge("Healthy", ready)


def judge_budget(budget: LLMBudget) -> Judgement:
    """Return the level of a budget. One that is spent and refuses is trouble for those whom it refuses."""
    found = _by_type(budget.status)
    ready = found.get(READY)
    if (undecided := _undecided(budget.metadata.generation, budget.status, ready)) is not None:
        return undecided
    if ready is None:
        return _missing()
    exhausted = found.get(BUDGET_EXHAUSTED)
    if exhausted is not None and exhausted.status == "True":
        return _judge("NotReady" if budget.spec.hard.action == "Refuse" else "Warning", exhausted)
    if ready.status != "True":
        return _judge("NotReady", ready)
    if (unknown := found.get(SPEND_UNKNOWN)) is not None and unknown.status == "True":
        return _judge("NotReady", unknown)
    if (warning := _find_warning(found)) is not None:
        return _judge("Warning", warning)
    return _judge("Healthy", ready)


def judge_ready(generation: int, status: Status) -> Judgement:
    """Return the level of an object that is Ready or not, such as an LLMTenant or LLMProvider."""
    found = _by_type(status)
    ready = found.get(READY)
    if (undecided := _undecided(generation, status, ready)) is not None:
        return undecided
    if ready is None:
        return _missing()
    if ready.status != "True":
        return _judge("NotReady", ready)
    warning = _find_warning(found)
    return _judge("Healthy", ready) if warning is None else _judge("Warning", warning)


def is_exhausted(budget: LLMBudget) -> bool:
    """Say whether the budget is spent and has requests refused."""
    condition = _by_type(budget.status).get(BUDGET_EXHAUSTED)
    return condition is not None and condition.status == "True" and budget.spec.hard.action == "Refuse"


def _by_type(status: Status) -> Mapping[str, Condition]:
    return {condition.type: condition for condition in status.conditions}


def _undecided(generation: int, status: Status, ready: Condition | None) -> Judgement | None:
    """Return that the newest spec has no status yet. What stands of the one before says nothing about it."""
    if status.observed_generation >= generation and status.observed_generation:
        return None
    if ready is not None and status.observed_generation:
        message = "the spec is newer than the status: it has not been decided about yet"
        return Judgement("Changing", NOT_DECIDED, message, ready.last_transition_time)
    return None if ready is not None else _missing()


def _missing() -> Judgement:
    message = "nothing is decided yet: is the operator running, and does it watch this namespace?"
    return Judgement("NotReady", NOT_DECIDED, message)


def _find_warning(found: Mapping[str, Condition]) -> Condition | None:
    warning = [
        condition
        for kind, condition in found.items()
        if kind not in _JUDGED_ALONE and condition.status == ("True" if kind in _BAD_WHERE_TRUE else "False")
    ]
    order = {kind: place for place, kind in enumerate(_SERIOUS)}
    return min(warning, key=lambda condition: order.get(condition.type, len(order)), default=None)


def _judge(level: Level, condition: Condition) -> Judgement:
    return Judgement(level, condition.reason, condition.message, condition.last_transition_time)
