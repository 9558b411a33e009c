"""About how long each job takes, to do the long ones first and to say beforehand how long it all takes."""

from benchmarks.autoscaling.agenda import Request, Results, expand
from benchmarks.autoscaling.jobs import COARSE_FLEETS, CURVE_FLEETS, LARGE, MANY, Job
from benchmarks.autoscaling.loads import expected_requests, expected_seconds, servegen
from benchmarks.autoscaling.policies import CLAIRVOYANT, OURS, settings_of
from benchmarks.autoscaling.scenarios import Case

# Processor seconds, measured on one of two busy cores of a virtual machine (x86-64, 2026). They need not be exact: they
# order the jobs, and the display corrects them by what the first jobs took.
_PER_REQUEST = 0.7e-6
"""Of a request-level run: 0.5e-6 with 10 replicas, 0.75e-6 with 50."""
_MAKING = 0.7e-6
"""Of making one request."""
_FLOW = 2.0e-6
"""Of a flow, for each simulated second."""
_RULE = {
    OURS: 2.5e-4,
    CLAIRVOYANT: 1.0e-6,
    "knative": 3.0e-5,
    "aibrix-apa": 3.8e-5,
    "keda-queue": 1.7e-5,
    "keda-queue-cache": 1.9e-5,
}
"""Of a rule's decisions, for each simulated second: those that decide every two seconds or start many replicas take the
longest."""
_OTHER_RULES = 4.0e-6
_CALIBRATION = 5
"""Runs with fleets of a fixed size that begin a search, where no curve was measured before."""


def seconds_of(job: Job, case: Case) -> float:
    """Return the processor seconds that a job takes."""
    if job.kind == "curve":
        return sum(_curve_seconds(case, part) for part in case.parts)
    if job.kind == "days":
        length = case.load.limit or servegen().duration
        return _schedules(job) * _flow_seconds(job.policy, length)
    requests, length = expected_requests(case, job.part), expected_seconds(case, job.part)
    if job.kind == "tune":
        return settings_of(job.policy) * _flow_seconds(job.policy, length)
    runs = _schedules(job) - (_CALIBRATION if job.kind == "plan" and requests > MANY else 0)
    made = requests * _MAKING
    return made + runs * (requests * _PER_REQUEST + length * _RULE.get(job.policy, _OTHER_RULES))


def _curve_seconds(case: Case, part: str) -> float:
    requests = expected_requests(case, part)
    fleets = COARSE_FLEETS if requests > LARGE else CURVE_FLEETS
    return requests * (_MAKING + len(fleets) * _PER_REQUEST)


def _flow_seconds(policy: str, length: float) -> float:
    return length * (_FLOW + _RULE.get(policy, _OTHER_RULES))


def _schedules(job: Job) -> int:
    """Return how many schedules a search plays: the calibration, the bisections, those near the best, and trials."""
    return 1 if not job.steps else _CALIBRATION + job.steps + job.rounds * (3 + job.steps) + job.trials


def budget_of(request: Request) -> dict[tuple[str, str], tuple[int, float]]:
    """Return the jobs and processor seconds of a run that starts from nothing, by scenario and kind of work."""
    budget: dict[tuple[str, str], tuple[int, float]] = {}
    for job in dict.fromkeys(expand(request, Results(), foresee=True)):
        jobs, seconds = budget.get((job.case, job.kind), (0, 0.0))
        budget[job.case, job.kind] = jobs + 1, seconds + seconds_of(job, request.case(job.case))
    return budget
