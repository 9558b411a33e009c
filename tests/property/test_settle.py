"""Laws of an hour's dollars: all of them are shared out, and nobody pays for what others used more of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.ledger.archive import DAY, add_up
from modelyard.core.ledger.codec import Archive, decode_archive, encode_archive
from modelyard.core.ledger.report import add_up_rows, total_of
from modelyard.core.ledger.settle import Charged, Held, settle, sum_lines, work
from modelyard.core.ledger.usage import Use, spend_key
from modelyard.core.spend import HOUR

START = 1_800_000_000

counts = st.integers(0, 10**6)
uses = st.builds(Use, counts, counts, counts, counts, st.integers(0, 9), counts, counts)
keys = st.builds(
    spend_key,
    st.sampled_from(("", "blue", "red", "_other")),
    st.sampled_from(("team/a", "team/chat@route", "lab/chat@route")),
    st.sampled_from(("team/a", "lab/b", "provider:acme/org/m", "provider:acme/m")),
)
dollars = st.floats(0, 1e6)
charges = st.dictionaries(keys, st.builds(Charged, uses), max_size=8).flatmap(
    lambda found: st.fixed_dictionaries(
        {
            key: st.builds(Charged, st.just(item.use), dollars, st.just(0.0), st.booleans())
            if key.target.startswith("provider:")
            else st.just(item)
            for key, item in found.items()
        }
    )
)
held = st.dictionaries(
    st.sampled_from(("team/a", "lab/b", "lab/c")),
    st.builds(Held, st.floats(0, 1e4), dollars, st.sampled_from((0.0, 1.0)), st.floats(0, 1e6)),
)


@given(charges, held)
def test_everything_is_shared_out_once(charged, holdings):
    lines = settle(charged, holdings)
    spent = sum(item.dollars for item in holdings.values())
    spent += sum(item.dollars for key, item in charged.items() if key.target.startswith("provider:"))
    assert sum(line.dollars for line in lines) == pytest.approx(spent)
    assert sum(line.hours for line in lines) == pytest.approx(sum(item.hours for item in holdings.values()))
    used = sum((item.use for item in charged.values()), Use())
    assert sum((line.use for line in lines), Use()) == used
    for line in lines:
        assert 0 <= line.marginal <= line.dollars * (1 + 1e-9)
        assert 0 <= line.estimated <= line.dollars * (1 + 1e-9)


@given(charges, held)
def test_more_work_never_costs_less(charged, holdings):
    lines = [line for line in settle(charged, holdings) if line.use and line.kind == "Own"]
    for one in lines:
        for other in lines:
            if one.key.target == other.key.target and work(one.use) >= work(other.use):
                assert one.dollars >= other.dollars * (1 - 1e-9)


@given(charges, held)
def test_every_view_and_every_form_says_the_same(charged, holdings):
    lines = settle(charged, holdings)
    archive = Archive(START, HOUR, lines)
    again = decode_archive(encode_archive(archive))
    assert [line.key for line in again.lines] == [line.key for line in lines]
    assert [line.use for line in again.lines] == [line.use for line in lines]
    day = add_up([archive, Archive(START + HOUR, HOUR, lines)])
    assert day.start == START - START % DAY
    assert sum(line.dollars for line in day.lines) == pytest.approx(2 * sum(line.dollars for line in lines))
    assert sum_lines(lines) == lines
    views = [
        total_of(add_up_rows([(START, lines)], by, "allocation", START, START + HOUR, split=split)).line
        for by in ("tenant", "route", "deployment", "namespace")
        for split in (False, True)
    ]
    for view in views:
        assert view.use == views[0].use
        assert view.dollars == pytest.approx(views[0].dollars)
        assert view.unpriced == views[0].unpriced
