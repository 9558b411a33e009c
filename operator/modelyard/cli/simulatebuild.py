"""From the question of a plan and the arrivals to the report of a simulation."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.meta import Refusal
from modelyard.cli.simulatemodel import (
    EXIT_CODES,
    Decision,
    LostMetrics,
    Outcome,
    PolicyRun,
    PolicyTotal,
    Quantiles,
    RunCost,
    Series,
    SimulatedDeployment,
    SimulatedLoad,
    SimulatedSetting,
    SimulationReport,
    SpotLoss,
)
from modelyard.core.place import measure_room
from modelyard.core.plan import DeploymentPlan
from modelyard.core.report.build import Question, state_load
from modelyard.core.report.model import FINE
from modelyard.core.report.settle import settle
from modelyard.core.scaling.schedules import Bounds, apply_bounds
from modelyard.simulator import scenario as simulated
from modelyard.simulator.fleetrun import (
    SPEED_UNKNOWN,
    Played,
    RunOptions,
    Subject,
    answered_tokens,
    build_subject,
    plan_load,
    play,
)
from modelyard.simulator.loadstats import peak_rate
from modelyard.simulator.modelyard import EPOCH
from modelyard.simulator.rivals.common import mean_shape
from modelyard.simulator.run import SAMPLE
from modelyard.simulator.scenario import Arrivals, Floats

MOST_STEPS = 500
"""Steps of a series: more than a plot has pixels to show, and a report that can still be read as text."""

Track = Callable[[str, str, float], None]
"""Is told deployment, policy and seconds of a run as it proceeds."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is simulated."""

    question: Question
    arrivals: Mapping[str, Arrivals]
    """By `namespace/name`: the deployments that are simulated."""
    policies: Sequence[str]
    seed: int = 0
    speed: float = 1.0
    start_time: float | None = None
    begin: float = EPOCH
    """Unix time at which the traffic begins."""
    disturbances: simulated.Disturbances = field(default_factory=simulated.Disturbances)
    image_pull: float = 0.0
    notes: tuple[str, ...] = ()


def build_simulation(asked: Asked, track: Track) -> SimulationReport:
    """Simulate every deployment under every policy, and return the report."""
    subjects = find_subjects(asked)
    deployments = tuple(
        _simulate(asked, key, subjects[key], asked.arrivals[key], track) for key in sorted(asked.arrivals)
    )
    outcome: Outcome = "DoesNotFit" if any(item.refusal for item in deployments) else "Ok"
    return SimulationReport(
        outcome=outcome,
        exit_code=EXIT_CODES[outcome],
        seed=asked.seed,
        speed=asked.speed,
        deployments=deployments,
        totals=tuple(_total(deployments)),
        notes=(*asked.question.notes, *asked.notes),
    )


def find_subjects(asked: Asked) -> dict[str, Subject | Refusal]:
    """Return each deployment on the variant that the cluster would choose for the peak of its load, or a refusal."""
    question = asked.question
    snapshot, context = question.snapshot, question.context
    loads = {
        key: plan_load(asked.arrivals[key])
        if key in asked.arrivals
        else question.loads.get(key) or state_load(deployment)
        for key, deployment in snapshot.deployments.items()
    }
    widest = {key: _widen(deployment) for key, deployment in snapshot.deployments.items()}
    decided, _ = settle(replace(snapshot, deployments=widest), loads, question.now, context.policy)
    return {
        key: _find_subject(asked, snapshot.deployments[key], decided.deployments[key])
        for key in asked.arrivals
    }


def _find_subject(asked: Asked, deployment: LLMDeployment, plan: DeploymentPlan) -> Subject | Refusal:
    question = asked.question
    if plan.refusal is not None or plan.placement is None:
        named = {option.class_name for option in deployment.spec.placement.accelerators}
        unknown = sorted(named & question.context.undescribed)
        if unknown:
            return Refusal(
                SPEED_UNKNOWN,
                f"nothing is known of class {', '.join(unknown)}: give the file with its AcceleratorClass, or "
                "--against where it exists",
            )
        return plan.refusal or Refusal(SPEED_UNKNOWN, "it has no placement")
    if question.check is not None and (found := question.check(deployment, plan.placement)) is not None:
        return found
    variant = plan.placement.main
    room = measure_room(variant, question.snapshot.inventory)
    if room is not None:
        children = question.snapshot.children.get(deployment.key, {})
        room += children[variant.name].replicas if variant.name in children else 0
    options = RunOptions(
        seed=asked.seed,
        start_time=asked.start_time,
        disturbances=asked.disturbances,
        image_pull=asked.image_pull,
        utilization=question.context.policy.size.utilization,
        room=room,
        begins=asked.begin,
    )
    subject = build_subject(deployment, variant, asked.arrivals[deployment.key], options)
    unread = question.context.unread.get(deployment.spec.model.source)
    if isinstance(subject, Refusal) and unread is not None:
        return Refusal(subject.reason, f"{subject.message} ({unread.message})")
    return subject


def _widen(deployment: LLMDeployment) -> LLMDeployment:
    """Return the deployment with all that any of its schedules allows, at all times."""
    scaling = deployment.spec.scaling
    if scaling is None:
        return deployment
    return apply_bounds(deployment, Bounds(scaling.lowest_min, scaling.highest_max))


def _simulate(
    asked: Asked, key: str, subject: Subject | Refusal, arrivals: Arrivals, track: Track
) -> SimulatedDeployment:
    deployment = asked.question.snapshot.deployments[key]
    shape = mean_shape(arrivals)
    report = SimulatedDeployment(
        namespace=deployment.metadata.namespace,
        name=deployment.metadata.name,
        model=deployment.served_name,
        refusal=subject.message if isinstance(subject, Refusal) else "",
        load=SimulatedLoad(
            trace=arrivals.name,
            requests=len(arrivals),
            duration=round(arrivals.duration, 3),
            mean_requests_per_second=round(len(arrivals) / arrivals.duration, 4),
            peak_requests_per_second=round(peak_rate(arrivals), 4),
            input_tokens=round(shape.input_tokens, 1),
            output_tokens=round(shape.output_tokens, 1),
        ),
    )
    if isinstance(subject, Refusal):
        return report
    runs = []
    for policy in asked.policies:
        played = play(subject, policy, lambda time, name=policy: track(key, name, time))  # type: ignore[misc]
        runs.append(report_run(subject, policy, played))
    return report.model_copy(
        update={"setting": _setting(subject, asked.begin), "runs": tuple(runs), "notes": subject.notes}
    )


def _setting(subject: Subject, begin: float) -> SimulatedSetting:
    variant, scenario = subject.variant, subject.scenario
    scaling = subject.deployment.spec.scaling
    scheduled = scaling is not None and bool(scaling.schedules)
    return SimulatedSetting(
        runs_on=variant.label,
        capacity_per_minute=round(scenario.capacity * 60, 2),
        basis=variant.basis,
        price_per_hour=None if variant.price is None else variant.price.quantize(FINE),
        minimum=scenario.minimum,
        maximum=scenario.maximum,
        initial=scenario.initial,
        start_time=round(scenario.start.median, 3),
        provision_time=scenario.start.provision,
        image_pull_time=scenario.start.image_pull or None,
        first_token=scenario.objective.first_token_base,
        inter_token=scenario.objective.inter_token,
        **_report_faults(scenario.disturbances),
        begin=f"{datetime.fromtimestamp(begin, UTC):%Y-%m-%dT%H:%M:%SZ}" if scheduled else None,
    )


def _report_faults(disturbances: simulated.Disturbances) -> dict[str, Any]:
    """Return the fields of the setting about what goes wrong; None: nothing of the kind does."""
    lost, losses = disturbances.lost_readings, disturbances.spot_losses
    return {
        "abandon_after": disturbances.abandon_after,
        "retries": disturbances.retries or None,
        "scrape_delay": disturbances.reading_delay or None,
        "lost_metrics": tuple(LostMetrics(start=start, end=end) for start, end in lost) or None,
        "spot_losses": tuple(SpotLoss(time=time, replicas=count) for time, count in losses) or None,
    }


def report_run(subject: Subject, policy: str, played: Played) -> PolicyRun:
    """Return the report of one run."""
    outcome, arrivals = played.outcome, subject.scenario.arrivals
    priced = subject.variant.price is not None
    tokens = answered_tokens(outcome, arrivals)
    return PolicyRun(
        policy=policy,
        requests=outcome.requests,
        attained=outcome.attained,
        attainment=round(outcome.attainment, 9),
        completed=outcome.completed,
        refused=outcome.refused,
        abandoned=outcome.abandoned,
        first_token=_quantiles(outcome.first_token),
        inter_token=_quantiles(outcome.inter_token),
        cost=_cost(Decimal(repr(float(outcome.cost))), arrivals.duration, tokens) if priced else None,
        replica_hours=round(outcome.replica_seconds / 3600, 3),
        peak_replicas=int(max(outcome.wanted, default=subject.scenario.initial)),
        cold_starts=outcome.cold_starts,
        reversals=outcome.reversals,
        decisions=tuple(
            Decision(
                time=round(change.time, 3),
                from_replicas=change.before,
                to_replicas=change.after,
                reason=change.reason,
                message=change.message,
                numbers={name: round(value, 4) for name, value in sorted(change.numbers.items())} or None,
            )
            for change in played.changes
        ),
        reasons=dict(sorted(outcome.reasons.items())),
        series=build_series(outcome),
    )


def build_series(outcome: simulated.Outcome) -> Series:
    """Return the samples of a run, so many to a step that there are no more than MOST_STEPS steps."""
    samples = len(outcome.time)
    width = max(1, -(-samples // MOST_STEPS))
    starts = np.arange(0, samples, width)
    counts = np.diff(np.append(starts, samples))
    arrived = np.add.reduceat(outcome.arrival_rate, starts)
    attained = np.add.reduceat(np.nan_to_num(outcome.attained_share) * outcome.arrival_rate, starts)
    return Series(
        step=SAMPLE * width,
        time=tuple(float(time) for time in outcome.time[starts]),
        requests_per_second=tuple(round(float(rate), 4) for rate in arrived / counts),
        ready=tuple(round(float(ready), 2) for ready in np.add.reduceat(outcome.ready, starts) / counts),
        wanted=tuple(int(wanted) for wanted in np.maximum.reduceat(outcome.wanted, starts)),
        attained=tuple(
            round(float(good / all_), 4) if all_ else None
            for good, all_ in zip(attained, arrived, strict=True)
        ),
    )


def _quantiles(values: Floats) -> Quantiles:
    names = ("p50", "p90", "p95", "p99")
    known = {
        name: round(float(value), 4) for name, value in zip(names, values, strict=False) if np.isfinite(value)
    }
    return Quantiles(**known)


def _cost(total: Decimal, duration: float, tokens: float) -> RunCost:
    each = total / Decimal(tokens) * 1_000_000 if tokens else None
    return RunCost(
        total=total.quantize(FINE),
        per_hour=(total / Decimal(duration) * 3600).quantize(FINE),
        per_million_tokens=None if each is None else each.quantize(FINE),
    )


def _total(deployments: Iterable[SimulatedDeployment]) -> Iterable[PolicyTotal]:
    """Yield the sum over all deployments of each policy. Cost per token is that of all their tokens."""
    simulated_ones = [item for item in deployments if item.runs]
    policies = [run.policy for run in simulated_ones[0].runs] if simulated_ones else []
    for place, policy in enumerate(policies):
        runs = [item.runs[place] for item in simulated_ones]
        requests, attained = sum(run.requests for run in runs), sum(run.attained for run in runs)
        costs = [run.cost for run in runs if run.cost is not None]
        cost = None
        if len(costs) == len(runs):
            tokens = sum(
                item.load.requests
                * (item.load.input_tokens + item.load.output_tokens)
                * run.completed
                / run.requests
                for item, run in zip(simulated_ones, runs, strict=True)
                if run.requests
            )
            total = sum((item.total for item in costs), Decimal(0))
            per_hour = sum((item.per_hour for item in costs), Decimal(0))
            each = (total / Decimal(tokens) * 1_000_000).quantize(FINE) if tokens else None
            cost = RunCost(total=total, per_hour=per_hour, per_million_tokens=each)
        yield PolicyTotal(
            policy=policy,
            requests=requests,
            attained=attained,
            attainment=round(attained / requests, 9) if requests else 1.0,
            refused=sum(run.refused for run in runs),
            abandoned=sum(run.abandoned for run in runs),
            cost=cost,
            replica_hours=round(sum(run.replica_hours for run in runs), 3),
            cold_starts=sum(run.cold_starts for run in runs),
        )
