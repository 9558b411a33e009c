"""Which jobs there are, given the results so far: tuning waits for a curve, tuned runs for their tuning."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.autoscaling.jobs import CURVE_SEED, Job, Result, require
from benchmarks.autoscaling.policies import (
    CLAIRVOYANT,
    DOCUMENTED,
    NAMES,
    OURS,
    RIVAL_NAMES,
    needs_hindsight,
    settings_of,
)
from benchmarks.autoscaling.scenarios import Case

TARGET = 0.99
"""Share of requests that tuned settings are chosen to attain."""
DAYS_STEPS, DAYS_ROUNDS, DAYS_TRIALS = 5, 1, 0
"""Effort of the clairvoyant's search over 14 days."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for."""

    cases: Sequence[Case]
    full: bool = False
    policies: Sequence[str] = NAMES
    seeds: int | None = None
    """None: as many as each scenario says."""

    def case(self, name: str) -> Case:
        """Return the scenario of that name."""
        return next(case for case in self.cases if case.name == name)

    @property
    def rivals(self) -> tuple[str, ...]:
        """The published rules that are asked for."""
        return tuple(name for name in RIVAL_NAMES if name in self.policies)


@dataclass(slots=True)
class Results:
    """What came of it."""

    done: dict[Job, Result] = field(default_factory=dict)
    seconds: float = 0.0
    """From start to end."""
    worked: int = 0
    """Results that were not there before."""
    _settings: dict[tuple[str, str], list[Result]] = field(default_factory=dict)
    """What is known of tuning: asked for again and again, and it never changes."""

    @property
    def processor_seconds(self) -> float:
        """What all the results took, also those that were there before."""
        return float(sum(result["seconds"] for result in self.done.values()))

    def settings(self, case: Case, policy: str) -> list[Result] | None:
        """Return what each setting of a rule came to as a flow over all parts; None: not all parts are known."""
        key = case.name, policy
        if key not in self._settings:
            found = [self.done.get(tune_job(case, part, policy)) for part in case.parts]
            if any(one is None for one in found):
                return None
            columns = zip(*(one["settings"] for one in found if one is not None), strict=True)
            self._settings[key] = [_sum(rows) for rows in columns]
        return self._settings[key]

    def tuned(self, case: Case, policy: str) -> int | None:
        """Return the number of a rule's tuned setting; None: not known yet."""
        rows = self.settings(case, policy)
        return None if rows is None else best_setting(rows, TARGET)

    def bound_hours(self, case: Case) -> float:
        """Return the zero-lead bound over all parts, from any rule's tuning."""
        job = next(job for job in self.done if job.kind == "tune" and job.case == case.name)
        return float(sum(self.done[tune_job(case, part, job.policy)]["bound_hours"] for part in case.parts))


def _sum(rows: Sequence[Result]) -> Result:
    return {"text": rows[0]["text"]} | {
        name: sum(row[name] for row in rows) for name in rows[0] if name != "text"
    }


def best_setting(rows: Sequence[Mapping[str, float]], target: float) -> int:
    """Return the cheapest setting that attains the target, or else the one that attains the most."""
    numbers = range(len(rows))
    reached = [number for number in numbers if rows[number]["attained"] >= target * rows[number]["requests"]]
    if reached:
        return min(reached, key=lambda number: rows[number]["cost"])
    return max(numbers, key=lambda number: rows[number]["attained"])


def tune_job(case: Case, part: str, policy: str) -> Job:
    """Return the job that plays all settings of a rule over a part."""
    return Job("tune", case.name, part, policy=policy)


def curve_job(case: Case, cases: Sequence[Case]) -> Job:
    """Return the job that measures a scenario's curve: scenarios that differ in their starts share it."""
    same = (other for other in cases if (other.load, other.objective) == (case.load, case.objective))
    return Job("curve", next(same, case).name, seed=CURVE_SEED)


def expand(request: Request, results: Results, *, foresee: bool = False) -> Iterator[Job]:
    """Return every job that can be done now or has been.

    `foresee`: every job that there may be in the end, with any other setting in place of a tuned one that is not
    known yet.
    """
    for case in request.cases:
        yield curve_job(case, request.cases)
        yield from _own_plays(case, request)
        if foresee or curve_job(case, request.cases) in results.done:
            yield from _plans(case, request)
            yield from (tune_job(case, part, name) for name in request.policies for part in case.parts)
        yield from _rival_plays(case, request, results, foresee=foresee)
        if case.effort(full=request.full).days and (
            foresee or curve_job(case, request.cases) in results.done
        ):
            yield from _days(case, request, results, foresee=foresee)


def _own_plays(case: Case, request: Request) -> Iterator[Job]:
    if OURS not in request.policies:
        return
    for seed in range(request.seeds or case.effort(full=request.full).seeds):
        for part in case.parts:
            yield Job("play", case.name, part, seed, OURS)


def _plans(case: Case, request: Request) -> Iterator[Job]:
    effort = case.effort(full=request.full)
    for seed in range(request.seeds or effort.seeds):
        for part in case.parts:
            yield Job(
                "plan",
                case.name,
                part,
                seed,
                CLAIRVOYANT,
                steps=effort.steps,
                rounds=effort.rounds,
                trials=effort.trials,
            )


def _rival_plays(case: Case, request: Request, results: Results, *, foresee: bool) -> Iterator[Job]:
    effort = case.effort(full=request.full)
    seeds = min(request.seeds or effort.rival_seeds, effort.rival_seeds)
    for name in chosen_rivals(case, request, results, foresee=foresee):
        for setting in _settings(case, name, results, foresee=foresee):
            for seed in range(seeds):
                for part in case.parts:
                    yield Job("play", case.name, part, seed, name, setting)


def chosen_rivals(
    case: Case, request: Request, results: Results, *, foresee: bool = False
) -> tuple[str, ...]:
    """Return the published rules that are played request by request.

    All, or the few whose tuned settings do best as a flow: those that attain the target first, the cheaper before the
    dearer, then those that attain more. None while that is not known. Rules that need the whole trace beforehand are
    not among the few.
    """
    count = case.effort(full=request.full).rivals
    if count is None or count >= len(request.rivals):
        return request.rivals
    live = tuple(name for name in request.rivals if not needs_hindsight(name))
    merits: list[tuple[float, float, str]] = []
    for name in live:
        rows = results.settings(case, name)
        if rows is None:
            return live[:count] if foresee else ()
        row = rows[best_setting(rows, TARGET)]
        share = row["attained"] / row["requests"]
        merits.append((0.0, row["cost"], name) if share >= TARGET else (1.0, -share, name))
    return tuple(name for _, _, name in sorted(merits)[:count])


def _settings(case: Case, name: str, results: Results, *, foresee: bool) -> tuple[int, ...]:
    tuned = results.tuned(case, name)
    if tuned is None and foresee:
        tuned = min(1, settings_of(name) - 1)
    return (DOCUMENTED,) if tuned in (None, DOCUMENTED) else (DOCUMENTED, int(tuned or 0))


def _days(case: Case, request: Request, results: Results, *, foresee: bool) -> Iterator[Job]:
    yield Job(
        "days",
        case.name,
        policy=CLAIRVOYANT,
        steps=DAYS_STEPS,
        rounds=DAYS_ROUNDS,
        trials=DAYS_TRIALS,
    )
    if OURS in request.policies:
        yield Job("days", case.name, policy=OURS)
    for name in request.rivals:
        for setting in _settings(case, name, results, foresee=foresee):
            yield Job("days", case.name, policy=name, setting=setting)


def verify(request: Request, results: Results) -> None:
    """Raise WorkMissingError that says what is missing or does not fit: nothing, unless the benchmark is wrong."""
    missing = [f"{job} has no result" for job in expand(request, results) if job not in results.done]
    missing += [
        f"{case.name}: {name} is not tuned"
        for case in request.cases
        for name in request.policies
        if results.settings(case, name) is None
    ]
    played = {job.requests: result["requests"] for job, result in results.done.items() if job.kind == "plan"}
    for job, result in results.done.items():
        if "missed" in result and result["attained"] + result["missed"] != result["requests"]:
            missing.append(f"{job}: attained and missed requests are not all")
        if job.kind == "play" and played.get(job.requests) != result["requests"]:
            missing.append(f"{job} played other requests than the clairvoyant")
    require(not missing, "; ".join(missing[:5]))
