"""The report of a plan as a comment on a pull request.

Names and messages come from whoever opened the pull request, and the comment is posted by a bot that others trust.
So nothing of them is ever markup: no link, image, HTML, mention, reference to an issue or second table column.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from modelyard.cli.planwords import (
    clean,
    describe_api,
    describe_change,
    describe_comparison,
    describe_fit,
    describe_origin,
    describe_outcome,
    describe_totals,
    describe_variants,
    dollars,
    explain_deployment,
    find_changes,
    signed,
)
from modelyard.core.report.model import Change, DeploymentReport, PlanReport, Problem

MARKER: Final = "<!-- modelyard plan -->"
"""First line of the comment: a pipeline finds its own comment by it, and updates that."""

LARGEST_COMMENT: Final = 60_000
"""Characters. GitHub takes 65,536 in one comment, GitLab a million."""

_PROBLEMS: Final = 10_000
_TABLE: Final = 20_000
_OTHERS: Final = 5_000
"""Characters of the parts that are always there; the details have the rest."""

LONGEST_TEXT: Final = 2_000
"""Characters of one text that is not ours."""

_BREAK: Final = "\u200b"
"""Zero-width space: after it, what looks like a mention or a reference is none."""

_REFERENCES = re.compile(r"[@#!~%&^*$](?=[\w-])")
"""What GitHub and GitLab put before the name of a user, an issue, a merge request, a label, a milestone, a snippet."""

_PUNCTUATION = re.compile(r"[^\w\s.,;()/=+\-\u200b]")


def escape(text: str) -> str:
    """Return text that is shown as it is, whatever is in it.

    Punctuation becomes a numeric reference: CommonMark never takes that for markup, and a table never for a column.
    """
    shown = clean(text)
    if len(shown) > LONGEST_TEXT:
        shown = f"{shown[:LONGEST_TEXT]} ..."
    shown = _REFERENCES.sub(lambda match: f"{match[0]}{_BREAK}", shown)
    # Addresses, and names such as `owner/repository`, become links only if they stand in one piece.
    shown = shown.replace("://", f":{_BREAK}//").replace("www.", f"www{_BREAK}.")
    return _PUNCTUATION.sub(lambda match: f"&#{ord(match[0])};", shown.replace("_", "\0")).replace(
        "\0", "&#95;"
    )


def code(text: str) -> str:
    """Return text in fixed width. GitHub and GitLab look for neither mentions nor references in it."""
    return f"<code>{escape(text)}</code>"


def format_markdown(report: PlanReport) -> str:
    """Return the comment. What would make it too long for GitHub is left out, and it says so."""
    parts = [*_head(report), *_tail(report)]
    room = LARGEST_COMMENT - sum(len(part) + 1 for part in parts)
    details = ["\n".join(_details(deployment)) for deployment in report.deployments]
    body = _bound(details, room, "Details of {} more deployments do not fit here: see the plan's JSON.")
    return "\n".join([*_head(report), *body, *_tail(report)])


def _bound(lines: Sequence[str], room: int, more: str) -> list[str]:
    """Return the lines that fit into so many characters, and a sentence for how many do not."""
    shown: list[str] = []
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            return [*shown, more.format(len(lines) - len(shown))]
        shown.append(line)
    return shown


def _head(report: PlanReport) -> Iterator[str]:
    totals = report.totals
    change = ""
    if totals.change_per_day is not None and totals.before_per_day is not None:
        change = f" ({signed(totals.change_per_day)}, now {dollars(totals.before_per_day)})"
    yield MARKER
    yield f"### Modelyard plan: {dollars(totals.per_day)} USD/day{change}, {describe_outcome(report)}"
    yield ""
    if report.problems:
        yield from _bound([_problem(item) for item in report.problems], _PROBLEMS, "- and {} more problems")
        yield ""
    if report.deployments:
        yield from _table(report)
        yield ""


def _problem(problem: Problem) -> str:
    place = " ".join(part for part in (problem.object, problem.field) if part)
    at = f" {code(place)}" if place else ""
    return f"- **{problem.severity}** in {code(problem.file)}{at}: {escape(problem.message)}"


def _table(report: PlanReport) -> Iterator[str]:
    changes = find_changes(report)
    columns = ["deployment", "fit", "runs on", "replicas", "USD/h", "USD/day", "USD/1M tokens"]
    if changes:
        columns.append("change")
    yield f"| {' | '.join(columns)} |"
    yield f"|{'|'.join([' --- '] * 3 + [' ---: '] * 4 + [' --- '] * (len(columns) - 7))}|"
    rows = [_row(item, changes) for item in report.deployments]
    yield from _bound(rows, _TABLE, f"| {{}} more |{' |' * (len(columns) - 1)}")


def _row(item: DeploymentReport, changes: Mapping[str, Change]) -> str:
    cost = item.cost
    cells = [
        code(item.key),
        describe_fit(item),
        code(describe_variants(item)) if item.variants else "",
        "" if item.replicas is None else str(item.replicas),
        "?" if cost is None else dollars(cost.per_hour),
        "?" if cost is None else dollars(cost.per_day),
        "" if cost is None or cost.per_million_tokens is None else dollars(cost.per_million_tokens),
    ]
    if changes:
        cells.append(escape(describe_change(changes[item.key])) if item.key in changes else "")
    return f"| {' | '.join(cells)} |"


def _details(deployment: DeploymentReport) -> Iterator[str]:
    yield f"<details><summary>{code(deployment.key)}: why</summary>"
    yield ""
    for heading, sentence in explain_deployment(deployment):
        yield f"- **{heading}**: {escape(sentence)}"
    yield ""
    if deployment.comparisons:
        yield "| API | USD/1M tokens | USD/day at this load | own deployment | price of |"
        yield "| --- | ---: | ---: | --- | --- |"
        for item in deployment.comparisons:
            row = (
                escape(describe_api(item)),
                dollars(item.per_million_tokens),
                "" if item.per_day is None else dollars(item.per_day),
                escape(describe_comparison(item)),
                escape(describe_origin(item)),
            )
            yield f"| {' | '.join(row)} |"
        yield ""
    yield "</details>"
    yield ""


def _tail(report: PlanReport) -> Iterator[str]:
    others = [
        f"- {code(f'{change.namespace}/{change.name}')}, in none of the files: {escape(describe_change(change))}"
        for change in report.changes
        if not change.in_files and change.kind != "Unchanged"
    ]
    if others:
        yield from _bound(others, _OTHERS, "- and {} more deployments")
        yield ""
    yield " · ".join(escape(line) for line in describe_totals(report))
    if report.notes:
        yield ""
        yield f"<details><summary>{len(report.notes)} notes</summary>"
        yield ""
        yield from _bound([f"- {escape(note)}" for note in report.notes], _OTHERS, "- and {} more notes")
        yield ""
        yield "</details>"
