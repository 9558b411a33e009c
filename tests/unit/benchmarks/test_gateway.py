import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.gateway.bodies import (
    CHAT,
    NAME_BYTES,
    PROMPT,
    SIZES,
    STREAM,
    STREAM_EVENTS,
    answer,
    body,
    engine_name,
    event,
    last_events,
    recognise,
    sent_at,
)
from benchmarks.gateway.client import Load, Measured, WrongAnswerError, drive, quantile
from benchmarks.gateway.contenders import (
    ASYNCIO,
    CONTENDERS,
    DIRECT,
    LIMITED,
    OURS,
    PLAIN,
    Contender,
    models_table,
)
from benchmarks.gateway.holds import Cycles, Reply
from benchmarks.gateway.page import Origin, as_json, render
from benchmarks.gateway.results import Results, added_again, added_to_plain, checks_of, rate_of, work_of
from benchmarks.gateway.rounds import LATENCY, PROMPTS, ROWS, WorkMissingError, play
from benchmarks.gateway.streams import drive_streams
from benchmarks.gateway.upstream import Upstream
from modelyard.core.routing import Endpoint

ROOT = Path(__file__).parent.parent.parent.parent


@pytest.fixture(scope="module")
def engine():
    """The stand-in, in a thread that ends with the tests."""
    upstream = Upstream(0)
    threading.Thread(target=upstream.serve, daemon=True).start()
    return upstream.port


@pytest.fixture
def liar():
    """A server that gives one answer to everything."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(reply):
        def run():
            connection, _ = listener.accept()
            with connection:
                while connection.recv(1 << 20):
                    connection.sendall(reply)

        threading.Thread(target=run, daemon=True).start()
        return listener.getsockname()[1]

    yield serve
    listener.close()


def unary(content, status="200 OK"):
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


@pytest.mark.parametrize("kind", SIZES)
def test_bodies_have_their_size_and_are_recognised_whole(kind):
    sent = body(kind, "m" * NAME_BYTES)
    assert len(sent) == SIZES[kind]
    parsed = json.loads(sent)
    assert (parsed["model"], parsed["stream"]) == ("m" * NAME_BYTES, kind == STREAM)
    assert list(parsed)[-1] == "model"
    assert recognise(sent) == (kind, "m" * NAME_BYTES)
    assert recognise(b"GET" + sent + b"more", 3, 3 + len(sent)) == (kind, "m" * NAME_BYTES)
    for wrong in (sent[:-1], sent + b" ", sent[1:], sent.replace(b"request", b"Request", 1)):
        assert recognise(wrong) is None


def test_every_request_of_a_load_is_measured(engine):
    measured = drive(Load(engine, "m1", "m1", connections=3, requests=40, warmup=7))
    assert measured.answered == 40
    assert 0 < measured.p50 <= measured.p90 <= measured.p99
    assert drive(Load(engine, "m1", "m1", PROMPT, connections=2, requests=6)).answered == 6


def test_an_answer_for_another_model_is_an_error(engine):
    with pytest.raises(WrongAnswerError, match="bytes instead of"):
        drive(Load(engine, "m1", engine_name("m1")))
    with pytest.raises(WrongAnswerError):
        drive(Load(engine, "m1", "m2"))


@pytest.mark.parametrize(
    "reply",
    [
        unary(answer("m1"), "503 Service Unavailable"),
        unary(answer("m1")[:-1] + b" "),
        unary(answer("m1")[:-1]),
        b"HTTP/1.1 200 OK\r\n\r\n" + answer("m1"),
    ],
)
def test_wrong_answers_end_a_measurement(liar, reply):
    with pytest.raises(WrongAnswerError):
        drive(Load(liar(reply), "m1", "m1", requests=2))


def test_a_body_that_is_not_the_benchmarks_is_refused(engine):
    with socket.create_connection(("127.0.0.1", engine), timeout=10) as client:
        wrong = body(CHAT, "m1").replace(b"request", b"Request", 1)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {len(wrong)}\r\n\r\n"
        client.sendall(head.encode() + wrong)
        assert client.recv(4096).startswith(b"HTTP/1.1 400 ")


def test_streams_are_read_event_by_event(engine):
    measured = drive_streams(Load(engine, "m1", "m1", STREAM, connections=2, requests=2))
    assert measured.answered == 2
    assert 0 < measured.p50 <= measured.p99
    # 100 events, one each 10 ms.
    assert measured.seconds > 0.99


def test_streams_may_be_cut_anywhere_but_nothing_may_be_missing(liar):
    text = b"".join(event("m1", index, 1) for index in range(STREAM_EVENTS)) + last_events("m1")

    def streamed(content):
        pieces = [content[at : at + 777] for at in range(0, len(content), 777)]
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"

    assert sent_at("m1", event("m1", 3, 77)) == 77
    load = Load(0, "m1", "m1", STREAM, requests=1)
    assert drive_streams(replace(load, port=liar(streamed(text)))).answered == 1
    missing = text.replace(event("m1", 50, 1), b"")
    with pytest.raises(WrongAnswerError, match="event 50"):
        drive_streams(replace(load, port=liar(streamed(missing))))
    with pytest.raises(WrongAnswerError, match="ends with"):
        drive_streams(replace(load, port=liar(streamed(text[:-1]))))


def test_quantiles_are_values_that_were_seen():
    assert [quantile([1_000_000, 2_000_000, 3_000_000, 4_000_000], share) for share in (0.5, 0.51, 0.99)] == [
        2.0, 3.0, 4.0,
    ]  # fmt: skip
    assert quantile(list(range(0, 101_000_000, 1_000_000)), 0.99) == 99.0


def test_tables_have_a_route_for_every_model():
    table = models_table(range(3), Endpoint("10.0.0.1", 80), 4)
    assert [route.models[0] for route in table.routes] == ["m0", "m1", "m2"]
    assert {upstream.model for upstream in table.upstreams.values()} == {
        "engine/m0",
        "engine/m1",
        "engine/m2",
    }
    assert not any(upstream.endpoints for upstream in models_table([1], None).upstreams.values())


def test_a_held_request_with_another_answer_is_an_error():
    right = answer(engine_name("m3"))
    Reply(3, 200, 0.0, right).check()
    for wrong in (
        Reply(3, 503, 0.0, right),
        Reply(3, 200, 0.0, answer("m3")),
        Reply(3, 200, 0.0, right[:-1]),
    ):
        with pytest.raises(WorkMissingError, match="m3"):
            wrong.check()


async def test_a_contender_that_does_not_rewrite_the_model_ends_the_run(engine):
    told = []
    rows = [LATENCY.shortened()]
    found = await play(rows, [Contender(DIRECT, engine)], 2, 5, told.append)
    assert [one.answered for one in found[LATENCY.key][DIRECT]] == [1, 1]
    assert len(told) == 2
    with pytest.raises(WorkMissingError, match=r"Modelyard: .*bytes instead of"):
        await play(rows, [Contender(OURS, engine, rewrites=True)], 1, 5, told.append)


async def test_each_round_begins_with_another_contender(engine):
    told = []
    both = [Contender(DIRECT, engine), Contender(PLAIN, engine)]
    await play([LATENCY.shortened()], both, 2, 5, told.append)
    assert [line.rpartition(", ")[2] for line in told] == [DIRECT, PLAIN, PLAIN, DIRECT]


def measured(p50, seconds=1.0, processor=0.5):
    return Measured(1000, seconds, p50, 2 * p50, 3 * p50, processor, 0.1)


def made_up(ours=0.30, prompts=1.0):
    """Results over two rounds; the second is twice as slow for everybody, which no ratio may show."""
    latency = {
        DIRECT: [measured(0.1), measured(0.2)],
        PLAIN: [measured(0.2), measured(0.4)],
        OURS: [measured(ours), measured(2 * ours)],
        ASYNCIO: [measured(0.5), measured(1.0)],
    }
    rates = {DIRECT: 0.1, PLAIN: 1.0, OURS: 1 / prompts, ASYNCIO: 2.0}
    prompt_rounds = {
        name: [measured(1.0, seconds, 0.5 * seconds), measured(2.0, 2 * seconds, seconds)]
        for name, seconds in rates.items()
    }
    cycles = Cycles(2000, 2000, 100, 100, (1.0, 2.0))
    return Results(200, {LATENCY.key: latency, PROMPTS.key: prompt_rounds}, cycles, ready=[10.0, 20.0, 30.0])


def test_figures_compare_within_a_round():
    rounds = made_up().rounds
    assert added_to_plain(rounds[LATENCY.key]).median == pytest.approx(0.5)
    assert added_again(rounds[LATENCY.key]).median == pytest.approx(1.0)
    reached = rate_of(rounds[PROMPTS.key], ASYNCIO)
    assert (reached.low, reached.high) == (pytest.approx(2.0), pytest.approx(2.0))
    assert work_of(rounds[PROMPTS.key], PLAIN).median == pytest.approx(1.0)


def test_bars_say_by_how_much_they_are_missed():
    checks = checks_of(made_up())
    assert [check.passed for check in checks] == [False, True, True, True, True]
    assert checks[0].margin == "+0.15 x"
    assert [check.passed for check in checks_of(made_up(0.26, 0.79))] == [True, False, True, True, True]
    assert [check.passed for check in checks_of(made_up(0.26, 0.60))] == [True, False, False, True, True]
    slow, lost = made_up(), made_up()
    slow.ready = [60.0, 60.0]
    lost.cycles = replace(lost.cycles, answered=1999)
    assert [check.margin for check in checks_of(slow) if not check.passed][-1] == "+10.0 ms"
    assert [check.margin for check in checks_of(lost) if not check.passed][-1] == "-1"
    assert checks_of(Results(200)) == []


def test_the_page_shows_what_was_missed():
    page = render(made_up(), Origin("a command", "2026-01-01", "a machine", "No result."))
    assert "**No result.**" in page
    assert "| 0.50 x (0.50 to 0.50) | +0.15 x | **no** |" in page
    assert "2,000 of 2,000 held requests answered" in page


def test_a_smoke_run_does_everything_that_needs_no_cluster(tmp_path):
    parts = [option for part in ("requests", "holds", "tables") for option in ("--only", part)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gateway", "--quick", *parts, "-o", str(tmp_path)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": f"{ROOT / 'operator'}{os.pathsep}{ROOT}"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["rounds"].keys() == {row.key for row in ROWS}
    for rounds in results["rounds"].values():
        assert rounds.keys() == {DIRECT, PLAIN, OURS, LIMITED, ASYNCIO}
        assert len(rounds) == CONTENDERS
        assert {len(each) for each in rounds.values()} == {2}
        assert all(one["answered"] > 0 for each in rounds.values() for one in each)
        assert all(one["processor_seconds"] > 0 for one in rounds[OURS])
    assert results["cycles"]["answered"] == results["cycles"]["held"] == 12
    assert results["cycles"]["signals"] == results["cycles"]["sleeps"] == 4
    assert [table["models"] for table in results["tables"]] == [5, 10]
    assert as_json(Results(1), Origin("", "", "")).keys() == results.keys()
    assert "No bar" not in (tmp_path / "gateway-results.md").read_text()


def test_an_interrupt_ends_every_process_and_writes_nothing(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.gateway", "--only", "requests", "-o", str(tmp_path / "out")],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": f"{ROOT / 'operator'}{os.pathsep}{ROOT}", "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 300
        # The asyncio proxy is the last that is started.
        while not list(tmp_path.glob("modelyard-bench-*/asyncio/proxy.log")):
            assert time.monotonic() < deadline, "the benchmark did not start its processes"
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130, said
        assert "nothing was written" in said
        assert not (tmp_path / "out").exists()
        assert not list(tmp_path.glob("modelyard-bench-*"))
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
