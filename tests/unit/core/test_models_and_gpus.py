"""docs/models-and-gpus.md: up to date, its verdicts as expected, and within the tolerances that it states."""

import re

import pytest

from benchmarks.models_and_gpus.compare import Row, work_out
from benchmarks.models_and_gpus.page import PAGE, render
from benchmarks.models_and_gpus.pairs import Document, load
from modelyard.core.fit import DoesNotFit

PAIRS = 25


@pytest.fixture(scope="module")
def document() -> Document:
    return load()


@pytest.fixture(scope="module")
def rows(document: Document) -> list[Row]:
    return work_out(document)


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_the_page_is_up_to_date(document: Document, rows: list[Row], page: str) -> None:
    assert page == render(rows, document.tolerances)


def test_there_are_25_different_pairs(document: Document) -> None:
    keys = {(pair.model, pair.weights, pair.accelerator, pair.count) for pair in document.pairs}
    assert len(keys) == len(document.pairs) == PAIRS


def test_every_verdict_is_the_expected_one(rows: list[Row]) -> None:
    assert {row.name: row.verdict for row in rows} == {row.name: row.pair.verdict for row in rows}
    assert [row.verdict for row in rows] == [row.pair.verdict for row in rows]


def test_a_refusal_names_what_is_missing_and_the_first_remedy_works(rows: list[Row]) -> None:
    refused = [row for row in rows if isinstance(row.answer, DoesNotFit)]
    assert len(refused) >= 8
    for row in refused:
        assert isinstance(row.answer, DoesNotFit)
        assert row.answer.missing > 0, row.name
        assert row.chosen.weights + row.chosen.overhead <= row.chosen.budget, row.name
        assert row.speed.capacity.feasible, row.name


def test_figures_are_within_the_tolerance_unless_a_miss_is_explained(rows: list[Row]) -> None:
    unexplained = [(row.name, item) for row in rows for item in row.comparisons if not item.inside]
    assert [(name, item.ratio) for name, item in unexplained if item.figure.miss is None] == []


def test_no_miss_is_explained_that_is_none(rows: list[Row]) -> None:
    stale = [
        (row.name, item.figure.quantity, item.ratio)
        for row in rows
        for item in row.comparisons
        if item.inside and item.figure.miss is not None
    ]
    assert stale == []


def test_times_are_within_two_of_their_stated_standard_deviations(rows: list[Row]) -> None:
    times = [item for row in rows for item in row.comparisons if item.deviations is not None]
    assert len(times) > 15
    assert max(item.deviations or 0.0 for item in times) < 2


def test_the_counts_that_the_page_states_are_right(rows: list[Row], page: str) -> None:
    stated = re.search(
        r"\*\*(\d+) of the (\d+) pairs have a public figure, (\d+) in all; for (\d+) none was found\. (\d+) of\s"
        r"the (\d+) are within the tolerance\. The (\d+) that are not",
        page,
    )
    assert stated is not None
    found = [item for row in rows for item in row.comparisons]
    having = sum(bool(row.comparisons) for row in rows)
    inside = sum(item.inside for item in found)
    assert [int(number) for number in stated.groups()] == [
        having, PAIRS, len(found), PAIRS - having, inside, len(found), len(found) - inside,
    ]  # fmt: skip
    section = page.partition("## Figures outside the tolerance")[2]
    assert len(re.findall(r"^- ", section, re.MULTILINE)) == len(found) - inside
