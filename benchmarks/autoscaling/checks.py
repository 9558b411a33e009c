"""The bars: what was asked for, what our default reached, and by how much and why it falls short."""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.autoscaling.agenda import Results
from benchmarks.autoscaling.jobs import Result
from benchmarks.autoscaling.policies import CLAIRVOYANT, OURS
from benchmarks.autoscaling.scenarios import WHOLE, Case
from benchmarks.autoscaling.summary import Line, Table, agreement_of, cost_of, lines_of, share_of


@dataclass(frozen=True, slots=True)
class Check:
    """A bar, and what was reached."""

    bar: str
    reached: str
    passed: bool
    margin: str
    """Distance to the bar, to either side."""
    reason: str = ""
    """Why it falls short, as far as the figures say; empty where it does not."""


def checks_of(case: Case, results: Results) -> list[Check]:
    """Say for each of a scenario's bars whether our default reaches it."""
    lines = {line.policy: line for line in lines_of(case, results) if line.policy in (OURS, CLAIRVOYANT)}
    if OURS not in lines:
        return []
    checks = [*_attainment(case, results, lines), *_costs(case, results, lines[OURS])]
    if case.bars.drained_after_start is not None:
        checks.append(_drained(case, results))
    if case.bars.overshoot is not None:
        checks.append(_overshoot(case, results))
    return [*checks, *_agreement(case, results)]


def least_attainment(target: float, clairvoyant: float | None) -> float:
    """Return the share that must attain: where not even the clairvoyant attains the target, what it attains."""
    return target if clairvoyant is None else min(target, clairvoyant)


def _attainment(case: Case, results: Results, lines: dict[str, Line]) -> Iterator[Check]:
    if case.bars.attainment is None:
        return
    ours, best = lines[OURS].attainment, lines.get(CLAIRVOYANT)
    least = least_attainment(case.bars.attainment, best.attainment if best else None)
    passed = ours >= least
    whose = ", the clairvoyant's" if least < case.bars.attainment else ""
    yield Check(
        f"attainment at least {least:.2%}{whose}",
        f"{ours:.2%}",
        passed,
        f"{100 * (ours - least):+.2f} points",
        "" if passed else _where_missed(case, results),
    )


def _costs(case: Case, results: Results, ours: Line) -> Iterator[Check]:
    for limit, ratio, what in (
        (case.bars.to_clairvoyant, ours.to_clairvoyant, "cost at most {} x the clairvoyant's"),
        (case.bars.to_bound, ours.to_bound, "replica-hours at most {} x the zero-lead bound's"),
    ):
        if limit is not None:
            # NaN, where there is nothing to compare with, does not pass.
            passed = ratio <= limit
            yield Check(
                what.format(f"{limit:g}"),
                f"{ratio:.3f} x",
                passed,
                f"{abs(ratio / limit - 1):.1%} {'below' if passed else 'above'}",
                "" if passed else _where_dear(case, results),
            )


def _drained(case: Case, results: Results) -> Check:
    after = case.bars.drained_after_start
    assert after is not None
    rows = Table.of(case, results).seeds("play", OURS).values()
    seconds = max(row[WHOLE]["violated_until"] - case.load.at for row in rows)
    limit = case.start + after
    passed = seconds <= limit
    return Check(
        f"drained within {limit:g} s of the step",
        f"{max(seconds, 0.0):.0f} s, the latest of the seeds",
        passed,
        f"{seconds - limit:+.0f} s",
        "" if passed else "later than that, more than a tenth of the requests of some ten seconds missed",
    )


def _overshoot(case: Case, results: Results) -> Check:
    over = case.bars.overshoot
    assert over is not None
    table = Table.of(case, results)
    plans = table.clairvoyant("requests")
    most, needed = max(
        (
            (int(rows[WHOLE]["wanted_most"]), int(plans[seed][WHOLE]["most"]))
            for seed, rows in table.seeds("play", OURS).items()
        ),
        key=lambda pair: pair[0] - pair[1],
    )
    passed = most - needed <= over
    return Check(
        f"at most {over} replica more than the clairvoyant's highest",
        f"{most} against {needed}",
        passed,
        f"{most - needed - over:+d} replicas",
        "" if passed else f"most decisions: {_reasons(table)}",
    )


def _agreement(case: Case, results: Results) -> Iterator[Check]:
    rows = agreement_of(case, results)
    if case.bars.agreement is None or not rows:
        return
    limit, farthest = case.bars.agreement, rows[0]
    inside = sum(row.difference <= limit for row in rows)
    passed = inside == len(rows)
    ours = max((row.difference for row in rows if row.label.startswith(OURS)), default=0.0)
    yield Check(
        f"flow and request level within {100 * limit:g} points, every rule and part",
        f"{inside} of {len(rows)}; ours within {100 * ours:.2f}",
        passed,
        f"{100 * (farthest.difference - limit):+.2f} points",
        ""
        if passed
        else f"farthest: {farthest.label} ({farthest.part}), {farthest.requests:.2%} and as a flow {farthest.flow:.2%}",
    )


def _where_missed(case: Case, results: Results) -> str:
    table = Table.of(case, results)
    rows = [
        (row["attained"] / row["requests"], part, seed, row)
        for seed, parts in table.seeds("play", OURS).items()
        for part, row in parts.items()
    ]
    share, part, seed, row = min(rows, key=lambda found: found[0])
    missed = sum(other["missed"] for _, _, _, other in rows)
    return (
        f"{row['missed'] / missed:.0%} of all misses in one part: {part}, seed {seed}, {share:.2%} attain; "
        f"most decisions: {_reasons(table)}"
    )


def _where_dear(case: Case, results: Results) -> str:
    table = Table.of(case, results)
    bars = table.clairvoyant("requests")
    rows = [
        (row["cost"] / bars[seed][part]["cost"], part, seed)
        for seed, parts in table.seeds("play", OURS).items()
        if seed in bars
        for part, row in parts.items()
    ]
    if not rows:
        return "no clairvoyant to compare with"
    ratio, part, seed = max(rows)
    ours = table.seeds("play", OURS)[seed]
    shares = f"ours attains {share_of(ours):.2%}, the clairvoyant {share_of(bars[seed]):.2%}"
    extra = cost_of({part: ours[part]}) - cost_of({part: bars[seed][part]})
    return f"dearest part: {part}, seed {seed}, {ratio:.3f} x ($ {extra:.0f} more); over all parts {shares}"


def _reasons(table: Table) -> str:
    """Return the most frequent reasons of our decisions."""
    counts: dict[str, int] = {}
    for parts in table.seeds("play", OURS).values():
        for row in parts.values():
            _count(row, counts)
    total = sum(counts.values())
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:3]
    return ", ".join(f"{name} {count / total:.0%}" for name, count in ranked) or "no reasons given"


def _count(row: Result, counts: dict[str, int]) -> None:
    for name, number in row["reasons"].items():
        counts[name] = counts.get(name, 0) + number
