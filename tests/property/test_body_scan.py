"""The request scan finds what Python's JSON reader finds, wherever it divides the body."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lupa import luajit21

STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
Found = dict[str, Any]
Scan = Callable[[bytes], tuple[str | None, Found]]


def scanner(window: int, margin: int) -> Scan:
    """Return the scan of lua/json.lua with other sizes: it tells why a body is refused, and what was found in it."""
    lua = luajit21.LuaRuntime(encoding=None)
    source = (files("modelyard.render.envoy") / "lua" / "json.lua").read_text(encoding="utf-8")
    for name, size in (("WINDOW", window), ("MARGIN", margin)):
        source, replaced = re.subn(
            rf"^local {name} = \d+$", f"local {name} = {size}", source, flags=re.MULTILINE
        )
        assert replaced == 1
    lua.execute(
        source.encode()
        + b"""
        local Body = {}
        Body.__index = Body
        function Body:length() return #self.bytes end
        function Body:getBytes(first, length)
          -- As in Envoy.
          assert(first >= 0 and length >= 0 and first + length <= #self.bytes)
          return sub(self.bytes, first + 1, first + length)
        end
        function scan_bytes(bytes)
          local found, problem = scan(setmetatable({ bytes = bytes }, Body))
          return { found = found or {}, problem = problem or false }
        end
        """
    )
    run = lua.globals()[b"scan_bytes"]

    def call(body: bytes) -> tuple[str | None, Found]:
        answer = run(body)
        problem = answer[b"problem"]
        found = {key.decode(): value for key, value in answer[b"found"].items()}
        return (problem.decode() if problem else None), found

    return call


@pytest.fixture(scope="module")
def scan() -> Scan:
    """The scan as it is."""
    return scanner(65_536, 8_192)


@pytest.fixture(scope="module")
def scan_in_pieces() -> Scan:
    """The scan with pieces so small that every body has several; names and numbers here are shorter than the margin."""
    return scanner(80, 48)


class Pairs(list[tuple[int, Any]]):
    """An object: every key with its value, in their order, duplicates too."""


@dataclass(frozen=True)
class Name:
    """A string: its bytes between the quotes."""

    raw: bytes


def read(body: bytes) -> Any:
    """Return the body as Python's JSON reader understands it, or None if it is broken outside of its strings."""
    strings: list[bytes] = []

    def keep(match: re.Match[bytes]) -> bytes:
        strings.append(match[0][1:-1])
        return b'"%d"' % (len(strings) - 1)

    def refuse(_: str) -> Any:
        raise ValueError

    def name(value: Any) -> Any:
        return Name(strings[int(value)]) if isinstance(value, str) else value

    def pairs(found: list[tuple[str, Any]]) -> Pairs:
        return Pairs((name(key), value) for key, value in found)

    plain = STRING.sub(keep, body).decode("latin-1")
    try:
        return json.loads(
            plain, object_pairs_hook=pairs, parse_constant=refuse, parse_int=float, parse_float=float
        ), name
    except ValueError:
        return None


def expected(body: bytes) -> tuple[bool, bytes | None, bool]:
    """Return whether the body is to be refused, the bytes of the model's name, and whether a stream is asked for."""
    understood = read(body)
    if understood is None or not isinstance(understood[0], Pairs):
        return True, None, False
    top, name = understood
    models = [name(value) for key, value in top if key.raw == b"model"]
    escaped = any(b"\\" in key.raw and len(key.raw) <= 30 and _text(key.raw) == "model" for key, _ in top)
    if escaped or len(models) != 1 or not isinstance(models[0], Name):
        return True, None, False
    return False, models[0].raw, any(key.raw == b"stream" and value is True for key, value in top)


def _text(raw: bytes) -> str | None:
    try:
        return str(json.loads(b'"' + raw + b'"'))
    except ValueError:
        return None


NAMES = (
    b"model",
    b"messages",
    b"prompt",
    b"role",
    b"user",
    b"stream",
    b"stream_options",
    b"include_usage",
    b"a",
)
ODD_NAMES = (rb"mod\u0065l", rb"\"model\"", rb"mode\\l", b"", rb"\u006d\u006f\u0064\u0065\u006c")
texts = st.lists(
    st.sampled_from((b"x", b" ", rb"\"", rb"\\", rb"\n", "ü".encode(), b"model", b'":{}[],', rb"\u00fc")),
    max_size=6,
).map(
    lambda parts: (
        b'"' + b"".join(part.replace(b'"', rb"\"") if part == b'":{}[],' else part for part in parts) + b'"'
    )
)
spaces = st.sampled_from((b"", b"", b"", b" ", b"\n\t", b"\r  "))
scalars = st.sampled_from((b"0", b"-1", b"17", b"1.5e-3", b"9007199254740993", b"true", b"false", b"null"))


@st.composite
def objects(draw: st.DrawFn, values: st.SearchStrategy[bytes]) -> bytes:
    """Objects with names that mean something to the scan, some of them twice."""
    parts = []
    for name in draw(st.lists(st.sampled_from(NAMES * 3 + ODD_NAMES), max_size=6)):
        value = draw(st.one_of(texts, values) if name == b"model" else values)
        gaps = [draw(spaces) for _ in range(4)]
        parts.append(gaps[0] + b'"' + name + b'"' + gaps[1] + b":" + gaps[2] + value + gaps[3])
    return b"{" + (b",".join(parts) if parts else draw(spaces)) + b"}"


@st.composite
def arrays(draw: st.DrawFn, values: st.SearchStrategy[bytes]) -> bytes:
    """Arrays."""
    parts = [draw(spaces) + part + draw(spaces) for part in draw(st.lists(values, max_size=4))]
    return b"[" + (b",".join(parts) if parts else draw(spaces)) + b"]"


values = st.recursive(scalars | texts, lambda inner: objects(inner) | arrays(inner), max_leaves=12)
requests = st.one_of(
    objects(values),
    # Most of what is drawn above has no name of a model, or two.
    objects(values).map(lambda body: b'{"n":' + body + b',"model":"m"}'),
    objects(values).map(lambda body: b'{ "model" : "a\\"b" , "stream":true,"stream_options":' + body + b"}"),
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Requests, whole and with a few bytes changed."""
    body = draw(spaces) + draw(requests) + draw(spaces)
    for _ in range(draw(st.sampled_from((0, 0, 1, 2)))):
        place = draw(st.integers(0, len(body)))
        byte = draw(
            st.sampled_from((b"", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"0", b"-", b"t", b"\x00"))
        )
        body = body[:place] + byte + body[place + draw(st.integers(0, 1)) :]
    return body


@settings(deadline=None, max_examples=300)
@given(body=bodies())
@example(body=b"1")
@example(body=b'{"model":"m"}')
def test_it_finds_what_a_json_reader_finds(scan, scan_in_pieces, body):
    problem, found = scan(body)
    refused, model, streamed = expected(body)
    assert (problem is not None) == refused, (problem, body)
    if model is not None:
        assert body[int(found["first"]) - 1 : int(found["last"])] == model
        assert found.get("streamed", False) == streamed
    assert scan_in_pieces(body) == (problem, found)


@settings(deadline=None, max_examples=200)
@given(body=bodies())
@example(body=b'{"model":"m","stream_options":{ }}')
@example(body=b'{"model":"m","stream_options":null}')
def test_the_usage_is_asked_for_and_nothing_else_changes(scan, body):
    problem, found = scan(body)
    if problem is not None or found.get("wants_usage") or "edit_text" not in found:
        return
    first, last = int(found["edit_first"]), int(found["edit_last"])
    try:
        before = json.loads(body, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        return
    after = json.loads(body[: first - 1] + found["edit_text"] + body[last:])
    options = before.get("stream_options") or {}
    assert after == {**before, "stream_options": {**options, "include_usage": True}}


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object. Raises ValueError where a name stands twice: what such a body means is the target's to say."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


MESSAGES = b'[{"role":"system","content":"s"},{"content":[{"role":"x"}],"role":"user"},{"role":"user"}]'


def test_the_parts_that_requests_are_told_apart_by(scan, scan_in_pieces):
    body = (
        b'{"messages":'
        + MESSAGES
        + b',"prompt_cache_key":"k\\"","model":"m","image":"data:image/png;base64,AA"}'
    )
    problem, found = scan(body)
    assert problem is None
    parts = {
        name: body[int(found[f"{name}_first"]) - 1 : int(found[f"{name}_last"])]
        for name in ("key", "prompt", "user")
    }
    assert parts == {
        "key": b'k\\"',
        "prompt": MESSAGES,
        "user": b'{"content":[{"role":"x"}],"role":"user"}',
    }
    assert found["inline"] == len(b'data:image/png;base64,AA"')
    assert scan_in_pieces(body) == (problem, found)


@pytest.mark.parametrize(
    "slashes", [0, 1, 2, 3, 77, 78, 79, 80, 81, 1_000, 65_530, 65_531, 65_532, 65_533, 200_001]
)
def test_backslashes_decide_whether_a_quote_ends_a_text(scan, scan_in_pieces, slashes):
    body = b'{"p":"' + b"\\" * slashes + b'","model":"m"}'
    for each in (scan, scan_in_pieces):
        problem, _ = each(body)
        assert (problem is None) == (slashes % 2 == 0)
