"""The ledger: what is new of counts, what hours cost, and how they are written."""

import json
import zlib

import pytest

from modelyard.core.ledger.archive import (
    DAY,
    KEPT_DAYS,
    KEPT_SUMS,
    Step,
    add_up,
    archive_name,
    next_step,
    select_counted,
)
from modelyard.core.ledger.book import Holding, Ledger, OpenHour, SettledHour, TokenPrice, open_lines, take_in
from modelyard.core.ledger.codec import (
    Archive,
    LedgerError,
    decode_archive,
    decode_ledger,
    encode_archive,
    encode_ledger,
)
from modelyard.core.ledger.holdings import find_holdings, find_prices
from modelyard.core.ledger.settle import Charged, Held, Line, settle, sum_lines
from modelyard.core.ledger.usage import NodeCounts, Use, find_new, keep_reading, spend_key
from modelyard.core.snapshot import Pod
from modelyard.core.spend import HOUR, SpendKey
from modelyard.core.variants import variant_name
from modelyard.render.ledger import MAX_BYTES, LedgerTooLargeError, build_ledger, read_ledger
from tests.unit.core.build import make_accelerator, make_provider

T = 1_800_000_000
"""A whole hour."""

BLUE = spend_key("blue", "team/chat@route", "team/llama")
RED = spend_key("red", "team/chat@route", "team/llama")
API = spend_key("blue", "team/chat@route", "provider:acme/large")
PRICES = {API.target: TokenPrice(2e-6, 5e-7, 8e-6)}


def page(time, uptime=1000.0, **uses):
    return NodeCounts(T + time, uptime, {BLUE: Use(**uses)} if uses else {})


def test_keys():
    assert spend_key("t", "a/b:lora", "a/b:lora") == SpendKey("t", "a", "a/b:lora", "a/b"), (
        "adapters are deployments'"
    )
    assert spend_key("", "n/r@route", "provider:acme/org/m:free").target == "provider:acme/org/m:free"


@pytest.mark.parametrize(
    ("before", "now", "new"),
    [
        (None, page(0, requests=3), 3),
        (page(0, requests=3), page(2, 1002, requests=5), 2),
        (page(0, requests=3), page(2, 1002), 0),
        # The process is younger than the time since: another one.
        (page(0, requests=3), page(100, 90, requests=5), 5),
        # It is as old as it must be, after a long time without an operator.
        (page(0, 30, requests=3), page(5000, 5030, requests=5), 2),
        # Younger than before, or fewer than before.
        (page(0, 8, requests=3), page(6, 4, requests=5), 5),
        (page(0, 8, requests=3), page(2, 10, requests=1), 1),
        # No age is told: counts alone.
        (page(0, None, requests=3), page(100, None, requests=5), 2),
    ],
)
def test_what_is_new(before, now, new):
    assert sum(use.requests for use in find_new(before, now).values()) == new


def test_an_envoy_whose_counts_were_forgotten_is_not_counted_again():
    forgotten = NodeCounts(T, 1000, None)
    assert find_new(forgotten, page(5000, 6000, requests=9)) == {}
    assert find_new(forgotten, page(5000, 100, requests=9)) == {BLUE: Use(requests=9)}


def test_readings_before_and_after_a_restart_are_both_kept():
    first, second, other = page(0, requests=3), page(2, 1002, requests=4), page(4, 1, requests=9)
    assert keep_reading(keep_reading((), first), second) == (second,)
    assert keep_reading((second,), other) == (second, other)


def test_an_hour_is_shared_out_by_work():
    """Work: a token of a prompt 1, cached 0.25, of an answer 4."""
    uses = {
        BLUE: Charged(Use(requests=2, prompt=100, cached=40, completion=10)),
        RED: Charged(
            Use(requests=1, prompt=30, estimated_requests=1, estimated_prompt=60, estimated_completion=5)
        ),
    }
    lines = settle(uses, {"team/llama": Held(hours=2.0, dollars=8.0, room=30.0)})
    blue, red = 60 + 10 + 40, 30 + 60 + 20
    assert [line.key for line in lines] == [BLUE, RED]
    assert lines[0].dollars == pytest.approx(8 * blue / (blue + red))
    assert lines[1].dollars == pytest.approx(8 * red / (blue + red))
    assert lines[1].estimated == pytest.approx(8 * 80 / (blue + red))
    assert sum(line.hours for line in lines) == pytest.approx(2)
    assert sum(line.marginal for line in lines) == pytest.approx(8 * 3 / 30), (
        "of 30 requests it could have answered"
    )


def test_what_nobody_used_stays_with_the_deployment():
    (line,) = settle({}, {"team/llama": Held(hours=1.0, dollars=4.0, room=100.0)})
    assert (line.key, line.dollars, line.marginal) == (SpendKey("", "team", "", "team/llama"), 4.0, 0.0)


def test_what_has_no_price_is_marked():
    held = {"team/llama": Held(hours=1.0, unpriced=1.0)}
    (line,) = settle({BLUE: Charged(Use(requests=1, prompt=5))}, held)
    assert (line.dollars, line.unpriced, line.hours) == (0, True, 1.0)
    (line,) = settle({BLUE: Charged(Use(requests=1, prompt=5))}, {})
    assert line.unpriced, "its accelerators were never seen"
    ledger = take_in(Ledger(), {"x": (NodeCounts(T, 9, {API: Use(requests=1, prompt=5)}),)}, (), {}, T)
    ((_, line),) = open_lines(ledger)
    assert (line.kind, line.dollars, line.unpriced) == ("Provider", 0, True)


def test_tokens_of_a_provider_are_charged_at_the_price_of_their_time():
    use = Use(
        requests=2, prompt=1000, cached=400, completion=100, estimated_prompt=50, estimated_completion=10
    )
    ledger = take_in(Ledger(), {"x": (NodeCounts(T, 9, {API: use}),)}, (), PRICES, T)
    ((_, line),) = open_lines(ledger)
    known, estimated = 600 * 2e-6 + 400 * 5e-7 + 100 * 8e-6, 50 * 2e-6 + 10 * 8e-6
    assert line.dollars == line.marginal == pytest.approx(known + estimated)
    assert line.estimated == pytest.approx(estimated)
    dearer = {API.target: TokenPrice(1.0, 1.0, 1.0)}
    ledger = take_in(ledger, {"x": (NodeCounts(T + 9, 18, {API: use}),)}, (), dearer, T + 9)
    assert next(open_lines(ledger))[1].dollars == pytest.approx(known + estimated)


def test_held_hours_go_on_where_no_operator_was():
    """Of pods that are still there: from the last writing, or from their start."""
    old = Holding("team/llama", T - 9000, 2, 6.0, 0.5)
    new = Holding("team/llama", T + 2 * HOUR + 1800, 2, 6.0, 0.5)
    ledger = take_in(Ledger(), {}, (old,), {}, T + 1800)
    ledger = take_in(ledger, {}, (old, new), {}, T + 3 * HOUR)
    by_hour = dict(open_lines(ledger))
    assert {start - T: line.dollars for start, line in by_hour.items()} == {0: 3.0, HOUR: 6.0, 2 * HOUR: 9.0}
    assert by_hour[T].hours == 1.0, "two accelerators for half an hour"
    assert ledger.hour == OpenHour(T + 3 * HOUR)


def test_a_clock_that_went_back_takes_nothing_away():
    holding = Holding("team/llama", T, 1, 4.0, 0.0)
    ledger = take_in(Ledger(), {}, (holding,), {}, T)
    ledger = take_in(ledger, {}, (holding,), {}, T + 900)
    again = take_in(ledger, {"x": (page(800, requests=2),)}, (holding,), {}, T + 800)
    assert again.hour.held == ledger.hour.held
    assert again.hour.uses == {BLUE: Charged(Use(requests=2))}


def large_ledger(tenants, targets, nodes):
    keys = [
        spend_key(
            f"tenant-{tenant:04d}", f"team-{number}/model-{number}@route", f"team-{number}/model-{number}"
        )
        for tenant in range(tenants)
        for number in range(targets)
    ]
    counts = {
        key: Use(number % 997 * 31, number % 991 * 10_007, number % 983 * 1009, number % 977 * 4001)
        for number, key in enumerate(keys)
    }
    charged = {key: Charged(use, number / 7919, 0.0) for number, (key, use) in enumerate(counts.items())}
    lines = tuple(
        Line(key, use, 0.1, number / 7919, number / 104_729)
        for number, (key, use) in enumerate(counts.items())
    )
    return Ledger(
        T + 9.5,
        {f"envoy-{number}": NodeCounts(T + 9.0, 4e5, counts) for number in range(nodes)},
        OpenHour(T, charged, {"team-0/model-0": Held(1.5, 2.5, 0.0, 10.0)}),
        (SettledHour(T - HOUR, lines),),
    )


@pytest.mark.parametrize(("tenants", "plain"), [(2, True), (1000, False)])
def test_what_is_written_is_read_again_and_fits(tenants, plain):
    """1,000 tenants, 10 models and 2 Envoys: 10,000 keys, all of them used in one hour."""
    ledger = large_ledger(tenants, 10, 2)
    text = encode_ledger(ledger)
    manifest = build_ledger("modelyard-ledger", "modelyard-system", "Open", text, "7")
    assert ("data" in manifest) == plain
    again = decode_ledger(read_ledger(manifest))
    assert encode_ledger(again) == text
    assert again.nodes == ledger.nodes
    assert again.hour.uses.keys() == ledger.hour.uses.keys()
    size = len(text.encode()) if plain else len(zlib.compress(text.encode()))
    assert size < MAX_BYTES * 0.9


def test_what_does_not_fit_is_not_written():
    noise = json.dumps([(number * 2654435761) % 2**61 for number in range(200_000)])
    with pytest.raises(LedgerTooLargeError, match="fewer Envoys"):
        build_ledger("modelyard-ledger", "modelyard-system", "Open", noise)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version": 1}', '{"version": 2}', '{"version":1,"names":[],"keys":[[0]]}']
)
def test_what_is_no_ledger_is_not_read(text):
    for decode in (decode_ledger, decode_archive):
        with pytest.raises(LedgerError):
            decode(text)


def lines_of(dollars):
    return (Line(BLUE, Use(requests=1), 1.0, dollars, dollars),)


def test_archives():
    archive = Archive(T, HOUR, lines_of(2.5))
    assert decode_archive(encode_archive(archive)) == archive
    assert archive_name(T, HOUR) == "modelyard-ledger-2027-01-15-08"
    assert archive_name(T - T % DAY, DAY) == "modelyard-ledger-2027-01-15"


def test_hours_become_archives_and_then_days():
    settled = Ledger(T, {}, OpenHour(T), (SettledHour(T - HOUR, lines_of(1)),))
    assert next_step(settled, (), T).write == Archive(T - HOUR, HOUR, lines_of(1))
    assert next_step(settled, {(T - HOUR, HOUR)}, T) == Step()
    day = T - T % DAY
    hours = {(day + hour * HOUR, HOUR) for hour in range(24)}
    open_part = Ledger(T, {}, OpenHour(T))
    assert next_step(open_part, hours, day + (KEPT_DAYS + 1) * DAY - 1) == Step()
    late = day + (KEPT_DAYS + 1) * DAY
    assert next_step(open_part, hours, late) == Step(add_up=tuple(sorted(hours)))
    total = add_up(Archive(start, HOUR, lines_of(1)) for start, _ in sorted(hours))
    assert (total.start, total.seconds, total.lines[0].dollars, total.lines[0].use.requests) == (
        day,
        DAY,
        24,
        24,
    )
    both = {*hours, (day, DAY)}
    assert next_step(open_part, both, late) == Step(delete=tuple(sorted(hours)))
    assert next_step(open_part, {(day, DAY)}, late) == Step()
    very_late = late + (KEPT_SUMS + 1) * DAY
    assert next_step(open_part, {(day, DAY)}, very_late) == Step(delete=((day, DAY),))


def test_nothing_counts_twice_whatever_was_read_first():
    day = T - T % DAY
    known = {
        (day, DAY),
        (day, HOUR),
        (day + DAY, HOUR),
        (day + DAY + HOUR, HOUR),
        (day + DAY + 2 * HOUR, HOUR),
    }
    ledger = Ledger(T, {}, OpenHour(day + DAY + 2 * HOUR), (SettledHour(day + DAY + HOUR, lines_of(1)),))
    assert select_counted(known, ledger) == [(day, DAY), (day + DAY, HOUR)]


def test_sums_have_one_line_for_each_key():
    (line,) = sum_lines([*lines_of(1), *lines_of(2)])
    assert (line.dollars, line.use.requests, line.hours) == (3, 2, 2)


def test_pods_hold_until_they_are_gone():
    accelerators = {"l4": make_accelerator()}
    spot = variant_name("l4", 2, spot=True)
    pods = [
        Pod(
            "a",
            "1",
            "team/llama",
            accelerator="l4",
            accelerators={"nvidia.com/gpu": 2},
            created=T,
            scheduled=True,
        ),
        Pod(
            "b",
            "2",
            "team/llama",
            accelerator="l4",
            variant=spot,
            accelerators={"nvidia.com/gpu": 2},
            scheduled=True,
        ),
        Pod("c", "3", "team/llama", accelerator="l4", scheduled=True, terminating=True, phase="Running"),
        Pod("d", "4", "team/llama", accelerator="gone", scheduled=True),
        Pod("e", "5", "team/llama", accelerator="l4"),
        Pod("f", "6", "team/llama", accelerator="l4", scheduled=True, phase="Succeeded"),
    ]
    held = find_holdings(pods, accelerators, {})
    assert [item.accelerators for item in held] == [2, 2, 1, 1]
    assert held[0].price == pytest.approx(2 * held[2].price)
    assert held[1].price is None or held[1].price < held[0].price
    assert held[3].price is None
    assert held[0].since == T


def test_prices_of_providers():
    price = {"inputPerMillion": "2", "outputPerMillion": "8"}
    provider = make_provider(
        "acme",
        {"name": "org/m", "price": {**price, "cachedInputPerMillion": "0.5"}},
        {"name": "plain", "price": price},
        {"name": "unknown"},
    )
    assert find_prices({"acme": provider}) == {
        "provider:acme/org/m": TokenPrice(2e-6, 5e-7, 8e-6),
        "provider:acme/plain": TokenPrice(2e-6, 2e-6, 8e-6),
    }
