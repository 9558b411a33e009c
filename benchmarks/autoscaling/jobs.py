"""The pieces of work, each with a result that is kept: curves, tuning, request-level runs, plans, and 14 days.

Every job proves that it did its work before it returns anything: see `require`.
"""

import math
import time
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from benchmarks.autoscaling.loads import build_days, build_scenario, fleet
from benchmarks.autoscaling.policies import (
    CLAIRVOYANT,
    Counted,
    describe,
    make_days_policy,
    make_policy,
    settings_of,
)
from benchmarks.autoscaling.scenarios import Case
from modelyard.simulator.clairvoyant import plan
from modelyard.simulator.flow import AttainmentCurve, Bursts, add_bursts, fit_curve, flow_of, measure_bursts
from modelyard.simulator.fluid import run_fluid
from modelyard.simulator.fluidload import FluidLoad
from modelyard.simulator.rivals.static import Static, zero_lead_replica_seconds
from modelyard.simulator.run import run
from modelyard.simulator.scenario import Objective, Outcome, ScalingPolicy, Scenario
from modelyard.simulator.schedule import PERIOD

Kind = Literal["curve", "tune", "play", "plan", "days"]
Result = dict[str, Any]

CURVE_FLEETS = (0.75, 0.9, 1.0, 1.15, 1.4)
"""Capacity over mean load of the fleets that a curve of attainment is measured with."""
COARSE_FLEETS = (0.9, 1.15)
"""The same where a part has more than LARGE requests."""
LARGE = 5_000_000
MANY = 1_000_000
"""Requests of a part above which a plan begins with the measured curve of its load. Below, it measures one on the very
requests, whose runs of fixed fleets are candidates too: for a step one of them is nearly the best."""
CURVE_SEED = 1000
"""Arrivals that no other run sees."""


class WorkMissingError(RuntimeError):
    """A run did not do all its work, so none of its figures may be shown."""


def require(done: bool, what: object) -> None:
    """Raise WorkMissingError unless something was done."""
    if not done:
        raise WorkMissingError(str(what))


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work."""

    kind: Kind
    case: str
    part: str = ""
    seed: int = 0
    policy: str = ""
    setting: int = 0
    steps: int = 0
    rounds: int = 0
    trials: int = 0

    @property
    def requests(self) -> tuple[str, str, int]:
        """What identifies the requests that it plays."""
        return self.case, self.part, self.seed


def work(job: Job, case: Case, curve: Result | None) -> Result:
    """Do a job. Raises WorkMissingError where a run did not do all its work."""
    began = time.process_time()
    if job.kind == "curve":
        result = measure_curve(case)
    elif job.kind == "play":
        result = play(job, case)
    elif job.kind == "plan":
        assert curve is not None
        result = search(job, case, curve)
    else:
        assert curve is not None
        result = tune(job, case, curve) if job.kind == "tune" else play_days(job, case, curve)
    return result | {"seconds": time.process_time() - began}


def play(job: Job, case: Case) -> Result:
    """Play a policy request by request."""
    scenario = build_scenario(case, job.part, job.seed)
    policy = Counted(make_policy(job.policy, job.setting, scenario))
    outcome = run(scenario, policy)
    duration = scenario.arrivals.duration
    # The last decision may fall on the end; after it the run goes on until all is answered.
    require(policy.decisions >= int(duration / policy.interval) - 1, f"{job}: {policy.decisions} decisions")
    return _played(job, outcome, scenario)


def search(job: Job, case: Case, curve: Result) -> Result:
    """Find the clairvoyant's schedule and play it."""
    scenario = build_scenario(case, job.part, job.seed)
    known = curve_of(curve) if len(scenario.arrivals) > MANY else None
    found = plan(scenario, steps=job.steps, rounds=job.rounds, trials=job.trials, curve=known)
    periods = math.ceil(scenario.arrivals.duration / PERIOD - 1e-9)
    require(len(found.serving) == periods, f"{job}: {len(found.serving)} of {periods} periods are planned")
    extra = {"reached": found.reached, "runs": found.runs, "most": int(found.serving.max())}
    return _played(job, found.outcome, scenario) | extra


def _played(job: Job, outcome: Outcome, scenario: Scenario) -> Result:
    requests = len(scenario.arrivals)
    require(outcome.requests == requests, f"{job}: {outcome.requests} of {requests} requests were played")
    bound = zero_lead_replica_seconds(scenario)
    return summarise(job, outcome, scenario, bound)


def measure_curve(case: Case) -> Result:
    """Measure a load's curve of attainment, and its bursts where 14 days need them, on arrivals of their own seed."""
    runs: list[tuple[FluidLoad, Outcome]] = []
    bursts: list[Result] = []
    for part in case.parts:
        scenario = build_scenario(case, part, CURVE_SEED)
        load = flow_of(scenario.arrivals)
        if case.load.kind == "servegen":
            bursts.append(asdict(measure_bursts(scenario.arrivals)))
        needed = float(load.rate.mean()) / scenario.capacity
        fleets = COARSE_FLEETS if len(scenario.arrivals) > LARGE else CURVE_FLEETS
        for count in sorted({max(1, round(needed * share)) for share in fleets}):
            fixed = replace(scenario, initial=count)
            outcome = run(fixed, Static("static", fixed, count))
            require(outcome.requests == len(scenario.arrivals), f"{scenario.name}: requests are missing")
            runs.append((load, outcome))
    curve = fit_curve(fleet().engine, Objective(**case.objective.model_dump()), runs)
    return {"ratio": curve.ratio.tolist(), "share": curve.share.tolist(), "bursts": bursts, "runs": len(runs)}


def curve_of(found: Result) -> AttainmentCurve:
    """Return a measured curve."""
    return AttainmentCurve(np.array(found["ratio"]), np.array(found["share"]))


def tune(job: Job, case: Case, found: Result) -> Result:
    """Play every setting of a rule as a flow over one part, with its real counts of ten seconds."""
    curve = curve_of(found)
    scenario = build_scenario(case, job.part, job.seed)
    load = flow_of(scenario.arrivals)
    rows = []
    for number in range(settings_of(job.policy)):
        outcome = run_fluid(scenario, load, curve, make_policy(job.policy, number, scenario))
        require(outcome.requests == round(load.requests), f"{job}: requests are missing from the flow")
        rows.append(
            {
                "text": describe(job.policy, number),
                "cost": outcome.cost,
                "replica_hours": outcome.replica_seconds / 3600,
                "attained": outcome.attained,
                "requests": outcome.requests,
                "cold_starts": outcome.cold_starts,
                "reversals": outcome.reversals,
            }
        )
    return {"settings": rows, "bound_hours": zero_lead_replica_seconds(scenario) / 3600}


def play_days(job: Job, case: Case, found: Result) -> Result:
    """Play all 14 days as a flow with bursts."""
    scenario, mean = build_days(case, job.seed)
    load = add_bursts(mean, _mean_bursts(found), job.seed)
    curve = curve_of(found)
    extra: Result = {}
    if job.policy == CLAIRVOYANT:

        def player(scenario: Scenario, policy: ScalingPolicy) -> Outcome:
            return run_fluid(scenario, load, curve, policy)

        best = plan(
            scenario,
            steps=job.steps,
            rounds=job.rounds,
            trials=job.trials,
            player=player,
            flow=(load, curve),
        )
        periods = math.ceil(load.duration / PERIOD - 1e-9)
        require(len(best.serving) == periods, f"{job}: {len(best.serving)} of {periods} periods are planned")
        outcome, extra = best.outcome, {"reached": best.reached}
    else:
        policy = Counted(make_days_policy(job.policy, job.setting, scenario, mean))
        outcome = run_fluid(scenario, load, curve, policy)
        least = int(load.duration / policy.interval) - 1
        require(policy.decisions >= least, f"{job}: {policy.decisions} decisions")
    require(outcome.requests == round(load.requests), f"{job}: requests are missing from the flow")
    return summarise(job, outcome, scenario, _bound_of(load, scenario)) | extra


def _mean_bursts(found: Result) -> Bursts:
    bursts = [Bursts(**value) for value in found["bursts"]]
    # Of independent stretches the variances add up.
    cv = math.sqrt(float(np.mean([one.cv**2 for one in bursts])))
    return Bursts(cv, float(np.mean([one.correlation for one in bursts])))


def _bound_of(load: FluidLoad, scenario: Scenario) -> float:
    """Return the replica-seconds of the zero-lead bound for a flow, each minute the fewest for its mean rate."""
    steps = round(PERIOD / load.step)
    rates = load.rate[: len(load) // steps * steps].reshape(-1, steps).mean(axis=1)
    counts = np.maximum(np.ceil(rates / scenario.capacity - 1e-9), scenario.minimum)
    return float(counts.sum() * PERIOD)


def summarise(job: Job, outcome: Outcome, scenario: Scenario, bound: float) -> Result:
    """Return the figures of a run and its course in steps of a minute; `bound`: replica-seconds.

    Raises WorkMissingError unless every request is accounted for, in all and in the samples of the course.
    """
    answered = outcome.completed + outcome.refused + outcome.abandoned
    require(
        answered == outcome.requests, f"{job}: {answered} of {outcome.requests} requests are accounted for"
    )
    require(0 <= outcome.attained <= outcome.completed, f"{job}: {outcome.attained} requests attain")
    step = float(outcome.time[1] - outcome.time[0]) if len(outcome.time) > 1 else 60.0
    attained = float(np.nansum(outcome.arrival_rate * step * outcome.attained_share))
    require(
        math.isclose(attained, outcome.attained, rel_tol=1e-6, abs_tol=1.0),
        f"{job}: {outcome.attained} requests attain, but {attained:.1f} in the samples",
    )
    minutes = max(1, round(60 / step))
    return {
        "requests": outcome.requests,
        "attained": outcome.attained,
        "missed": outcome.requests - outcome.attained,
        "cost": outcome.cost,
        "replica_hours": outcome.replica_seconds / 3600,
        "bound_hours": bound / 3600,
        "capacity": scenario.capacity,
        "cold_starts": outcome.cold_starts,
        "reversals": outcome.reversals,
        "first_token_p99": _number(outcome.first_token[-1]),
        "reasons": dict(outcome.reasons),
        "ready": outcome.ready[::minutes].tolist(),
        "rate": [round(float(value), 2) for value in outcome.arrival_rate[::minutes]],
        "wanted_most": int(outcome.wanted.max()),
        "violated_until": last_violation(outcome),
    }


def last_violation(outcome: Outcome) -> float:
    """Return the end of the last sample in which more than a tenth of the requests missed; 0: there is none."""
    bad = np.flatnonzero(np.nan_to_num(outcome.attained_share, nan=1.0) < 0.9)
    step = outcome.time[1] - outcome.time[0] if len(outcome.time) > 1 else 0.0
    return float(outcome.time[bad[-1]] + step) if len(bad) else 0.0


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
