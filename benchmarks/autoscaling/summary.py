"""What the results say: sums over the parts of a scenario, ratios to the clairvoyant and the bound, the frontier."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.autoscaling.agenda import Results, tune_job
from benchmarks.autoscaling.jobs import Kind, Result
from benchmarks.autoscaling.policies import (
    CLAIRVOYANT,
    DOCUMENTED,
    NAMES,
    OURS,
    RIVAL_NAMES,
    describe,
    needs_hindsight,
)
from benchmarks.autoscaling.scenarios import Case
from modelyard.simulator.frontier import Point, frontier

Level = Literal["requests", "flow", "days"]
"""How something was played: request by request; the same requests as a flow; 14 days as a flow."""


@dataclass(frozen=True, slots=True)
class Line:
    """One policy with one setting on one scenario: means over the seeds, each summed over its parts."""

    policy: str
    setting: str
    attainment: float
    attainment_spread: float
    """Highest less lowest of the seeds."""
    cost: float
    """US dollars."""
    replica_hours: float
    to_clairvoyant: float
    """Cost over the clairvoyant's on the same requests; NaN where that was not looked for."""
    to_clairvoyant_spread: float
    to_bound: float
    cold_starts: float
    reversals: float
    first_token_p99: float
    """Seconds, the worst part's; NaN for a flow."""
    seeds: int
    level: Level = "requests"
    undominated: bool = False
    """Whether no other rule of the same level attains as much or more for less or the same."""

    @property
    def label(self) -> str:
        """Name and setting."""
        return self.policy if self.policy in (OURS, CLAIRVOYANT) else f"{self.policy}, {self.setting}"


Rows = Mapping[str, Result]
"""Results of one policy, setting and seed by part."""


@dataclass(frozen=True, slots=True)
class Table:
    """The results of one scenario by what they are of."""

    case: Case
    found: Mapping[tuple[Kind, str, int, int], Rows]
    """By kind, policy, setting and seed; only where every part is there."""

    @classmethod
    def of(cls, case: Case, results: Results) -> "Table":
        """Sort the results of a scenario."""
        grouped: dict[tuple[Kind, str, int, int], dict[str, Result]] = {}
        for job, result in results.done.items():
            if job.case == case.name and job.kind in ("play", "plan", "days"):
                grouped.setdefault((job.kind, job.policy, job.setting, job.seed), {})[job.part] = result
        return cls(
            case,
            {
                key: rows
                for key, rows in grouped.items()
                if set(rows) == ({""} if key[0] == "days" else set(case.parts))
            },
        )

    def seeds(self, kind: Kind, policy: str, setting: int = DOCUMENTED) -> dict[int, Rows]:
        """Return what a policy came to, by seed."""
        return {
            seed: rows
            for (one, name, number, seed), rows in sorted(self.found.items(), key=lambda item: item[0][3])
            if (one, name, number) == (kind, policy, setting)
        }

    def clairvoyant(self, level: Level) -> dict[int, Rows]:
        """Return the clairvoyant's results by seed."""
        return self.seeds("days" if level == "days" else "plan", CLAIRVOYANT)


def lines_of(case: Case, results: Results, level: Level = "requests") -> list[Line]:
    """Return all lines of a scenario, the clairvoyant first, then ours, then by attainment."""
    if level == "flow":
        found = list(_flow_lines(case, results))
    else:
        table = Table.of(case, results)
        found = [
            line
            for policy, setting, text in _entries(case, results)
            if (line := _line(table, level, policy, setting, text)) is not None
        ]
    order = {CLAIRVOYANT: 0, OURS: 1}
    return sorted(
        mark_frontier(found), key=lambda line: (order.get(line.policy, 2), -line.attainment, line.cost)
    )


def mark_frontier(lines: Sequence[Line]) -> list[Line]:
    """Return the lines, those marked that no other beats. The clairvoyant does not take part: it is the bar."""
    rules = [line for line in lines if line.policy != CLAIRVOYANT]
    best = {
        (point.cost, point.attainment)
        for point in frontier(Point(line.cost, line.attainment, line.label) for line in rules)
    }
    return [
        replace(line, undominated=line in rules and (line.cost, line.attainment) in best) for line in lines
    ]


def _entries(case: Case, results: Results) -> Iterator[tuple[str, int, str]]:
    yield CLAIRVOYANT, DOCUMENTED, "at least 99 %"
    yield OURS, DOCUMENTED, "default"
    for name in RIVAL_NAMES:
        tuned, note = results.tuned(case, name), " (hindsight)" if needs_hindsight(name) else ""
        yield name, DOCUMENTED, ("documented" if tuned != DOCUMENTED else "documented = tuned") + note
        if tuned is not None and tuned != DOCUMENTED:
            yield name, tuned, f"tuned: {describe(name, tuned)}{note}"


def _line(table: Table, level: Level, policy: str, setting: int, text: str) -> Line | None:
    kind: Kind = "days" if level == "days" else "plan" if policy == CLAIRVOYANT else "play"
    by_seed = table.seeds(kind, policy, setting)
    if not by_seed:
        return None
    seeds, bars = list(by_seed.values()), table.clairvoyant(level)
    attained = [share_of(rows) for rows in seeds]
    ratios = [cost_of(rows) / cost_of(bars[seed]) for seed, rows in by_seed.items() if seed in bars]
    hours = [total(rows, "replica_hours") for rows in seeds]
    bounds = [total(rows, "bound_hours") for rows in seeds]
    first = [row["first_token_p99"] for rows in seeds for row in rows.values()]
    return Line(
        policy=policy,
        setting=text,
        attainment=statistics.mean(attained),
        attainment_spread=max(attained) - min(attained),
        cost=statistics.mean(cost_of(rows) for rows in seeds),
        replica_hours=statistics.mean(hours),
        to_clairvoyant=statistics.mean(ratios) if ratios else math.nan,
        to_clairvoyant_spread=max(ratios) - min(ratios) if ratios else math.nan,
        to_bound=statistics.mean(used / bound for used, bound in zip(hours, bounds, strict=True)),
        cold_starts=statistics.mean(total(rows, "cold_starts") for rows in seeds),
        reversals=statistics.mean(total(rows, "reversals") for rows in seeds),
        first_token_p99=max(value for value in first) if None not in first else math.nan,
        seeds=len(seeds),
        level=level,
    )


def _flow_lines(case: Case, results: Results) -> Iterator[Line]:
    """Yield every rule's documented and tuned setting, and ours, as a flow over the first seed's requests."""
    bar = Table.of(case, results).clairvoyant("requests").get(0)
    for policy, setting, text in _entries(case, results):
        rows = results.settings(case, policy) if policy != CLAIRVOYANT else None
        if rows is not None:
            row = rows[setting]
            yield Line(
                policy=policy,
                setting=text,
                attainment=row["attained"] / row["requests"],
                attainment_spread=0.0,
                cost=row["cost"],
                replica_hours=row["replica_hours"],
                to_clairvoyant=row["cost"] / cost_of(bar) if bar else math.nan,
                to_clairvoyant_spread=0.0,
                to_bound=row["replica_hours"] / results.bound_hours(case),
                cold_starts=row["cold_starts"],
                reversals=row["reversals"],
                first_token_p99=math.nan,
                seeds=1,
                level="flow",
            )


def total(rows: Rows, name: str) -> float:
    """Return the sum of a figure over the parts."""
    return float(sum(row[name] for row in rows.values()))


def cost_of(rows: Rows) -> float:
    """Return US dollars over all parts."""
    return total(rows, "cost")


def share_of(rows: Rows) -> float:
    """Return the share of requests that attain over all parts."""
    return total(rows, "attained") / total(rows, "requests")


def sweep_of(case: Case, results: Results, policy: str) -> list[Point]:
    """Return a rule's points for every setting tried, played as a flow."""
    rows = results.settings(case, policy) or []
    return [Point(row["cost"], row["attained"] / row["requests"], row["text"]) for row in rows]


@dataclass(frozen=True, slots=True)
class Agreement:
    """One policy on one part of the first seed, both ways."""

    label: str
    part: str
    requests: float
    """Attainment request by request."""
    flow: float

    @property
    def difference(self) -> float:
        """Of the two, without sign."""
        return abs(self.requests - self.flow)


def agreement_of(case: Case, results: Results) -> list[Agreement]:
    """Return how flow and request level compare wherever both were played, the farthest first."""
    rows = []
    for job, result in results.done.items():
        if job.kind == "play" and job.case == case.name and job.seed == 0 and job.policy in NAMES:
            tuned = results.done.get(tune_job(case, job.part, job.policy))
            if tuned is not None:
                flow = tuned["settings"][job.setting]
                rows.append(
                    Agreement(
                        f"{job.policy}, {describe(job.policy, job.setting)}",
                        job.part,
                        result["attained"] / result["requests"],
                        flow["attained"] / flow["requests"],
                    )
                )
    return sorted(rows, key=lambda row: -row.difference)
