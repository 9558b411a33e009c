"""HTTP/1.1 requests as bytes: good ones, odd ones, and ones that try to be two things at once."""

import json
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.fuzz import hostile

SPOOFED: Final = "spoofed"
"""Stands in every header that only the gateway may set; nothing with it may reach a backend in such a header."""

INFERENCE: Final = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/messages",
    "/v1/rerank",
    "/v1/responses",
    "/v1/score",
)
OTHER_PATHS: Final = (
    "/",
    "*",
    "/v1/models",
    "/v1/models/a",
    "/v1/models/%ff",
    "/v1/models/a%00b",
    "/metrics",
    "/v1/load_lora_adapter",
    "/v1/../metrics",
    "/v1/%2e%2e/metrics",
    "//v1/chat/completions",
    "/v1/chat/completions/../../../metrics",
    "/v1/chat/completions;x",
    "/v1/chat/completions%00",
    "/v1/chat/completions\\..\\metrics",
    "http://other.example/v1/chat/completions",
)
INTERNAL: Final = (
    "x-modelyard-tenant",
    "x-modelyard-groups",
    "x-modelyard-route",
    "x-modelyard-served-model",
    "x-modelyard-scanned",
    "x-modelyard-authority",
    "x-modelyard-path",
    "x-modelyard-usage",
    "x-modelyard-stream",
    "x-modelyard-asked",
    "x-modelyard-anything",
    "x-envoy-original-path",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-retry-on",
    "x-envoy-internal",
    "x-gateway-destination-endpoint",
)
MODELS: Final = ("a", "b", "team/a", "team/b", "served-a", "served-b", "nobody", "a:b", "A", "")

_KEYS: Final = (
    '"model"',
    '"mod\\u0065l"',
    '"\\u006dodel"',
    '"model "',
    '"Model"',
    '"mo\\/del"',
    '"mod\\x65l"',
    '"mode\\l"',
    '"model\\u0000"',
    "'model'",
    "model",
)
_FILLERS: Final = (
    '"messages":[{"role":"user","content":"hi"}]',
    '"stream":true',
    '"stream":"true"',
    '"stream_options":{"include_usage":false}',
    '"n":9007199254740993',
    '"n":1e400',
    '"n":-0',
    '"n":01',
    '"x":null',
    '"x":{"model":"b"}',
    '"x":[{"model":"b"},{"model":["a"]}]',
    '"x":"\\"model\\":\\"b\\""',
    '"x":"\\ud83d"',
    '"x":"\\x61"',
    '"prompt_cache_key":"k"',
    '"":""',
    '"x":' + "[" * 60 + "]" * 60,
    '"x":' + "[" * 20_000 + "]" * 20_000,
    '"x":"' + "y" * 70_000 + '"',
    '"x":/* c */1',
    '"x":NaN',
)


@dataclass(frozen=True)
class Wire:
    """A request as it is sent."""

    data: bytes
    complete: bool
    """Whether the gateway has all that it may wait for: then its answer is awaited."""


def make_body(random: Random) -> bytes:
    """A JSON object with a model in most cases, in unusual ways."""
    if random.random() < 0.5:
        return json.dumps({"model": random.choice(MODELS[:2] * 4 + MODELS), "messages": []}).encode()
    parts = random.choices(_FILLERS, k=random.randrange(4))
    for _ in range(random.choice((0, 1, 1, 1, 2, 3))):
        value = random.choice(
            (
                json.dumps(random.choice(MODELS)),
                '"\\u0061"',
                '"\\u0062"',
                '"b\\u0000"',
                '["b"]',
                "1",
                "null",
                json.dumps(random.choice(hostile.STRINGS)),
            )
        )
        parts.append(random.choice(_KEYS[:1] * 6 + _KEYS) + random.choice((":", " : ", "\n:\t")) + value)
    random.shuffle(parts)
    text = "{" + random.choice((",", " ,\r\n", ",,") if random.random() < 0.3 else (",",)).join(parts) + "}"
    raw = text.encode("utf-8", "surrogatepass")
    damage = random.random()
    if damage < 0.08:
        raw = raw[: random.randrange(len(raw) + 1)]
    elif damage < 0.2:
        place = random.randrange(len(raw) + 1)
        raw = (
            raw[:place]
            + random.choice((b"\xff", b"\0", b"\xc0\xaf", b"\xed\xa0\x80", b"\n", b'"', b"}"))
            + raw[place:]
        )
    elif damage < 0.25:
        raw = random.choice((b"\xef\xbb\xbf" + raw, raw * 2, b"[" + raw + b"]", text.encode("utf-16")))
    return raw


def _spoof(random: Random, header: str) -> str:
    shaped = random.choice((str.lower, str.upper, str.title, lambda text: text.replace("-", "_")))(header)
    return f"{shaped}{random.choice((':', ': ', ':	', ' :'))}{SPOOFED}"


def make_headers(random: Random, key: str | None) -> list[str]:
    """Headers beside those that frame the body."""
    headers = ["host: gateway", "content-type: application/json", "connection: close"]
    if key is not None:
        headers.append(
            random.choice(
                (
                    f"authorization: Bearer {key}",
                    f"x-api-key: {key}",
                    f"Authorization:   bearer  {key}",
                    f"X-API-Key:{key}",
                )
            )
        )
    headers += [_spoof(random, item) for item in random.choices(INTERNAL, k=random.randrange(4))]
    odd = (
        "content-type: text/plain",
        "content-type: application/json; charset=utf-16",
        "expect: 100-continue",
        "upgrade: h2c",
        "connection: upgrade, HTTP2-Settings",
        "connection: x-modelyard-tenant, authorization",
        "te: trailers",
        "x-session-id: " + "s" * 3000,
        "x-http-method-override: GET",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: https",
        "authorization: Bearer " + "k" * 5000,
        "x-long: " + "l" * 70_000,
        "x-nul: a\0b",
        "x-folded: a\r\n b",
        "x-bare: a\nx-modelyard-tenant: " + SPOOFED,
        "x-utf8: é",
        "bad header",
        ": no-name",
        "cookie: a=b",
        *(f"x-{number}: y" for number in range(120)),
    )
    if random.random() < 0.25:
        headers += random.choices(odd[:20], k=random.randrange(1, 3))
    if random.random() < 0.02:
        headers += odd[20:]
    random.shuffle(headers)
    return headers


def _chunks(random: Random, body: bytes) -> bytes:
    out, place = b"", 0
    while place < len(body):
        size = random.randrange(1, max(2, len(body) // 3 + 1))
        piece = body[place : place + size]
        extension = random.choice((b"", b"", b";a=b", b';x="y"'))
        out += b"%x%s\r\n%s\r\n" % (len(piece), extension, piece)
        place += size
    trailer = random.choice((b"", b"", b"x-modelyard-tenant: " + SPOOFED.encode() + b"\r\n"))
    return out + b"0\r\n" + trailer + b"\r\n"


def make_request(random: Random, key: str | None) -> Wire:
    """One request, with whatever comes after it on the connection."""
    body = make_body(random)
    path = random.choice(INFERENCE[:2] * 16 + INFERENCE * 2 + OTHER_PATHS)
    if random.random() < 0.08:
        path += random.choice(("?model=b", "?x=%0d%0a", "#f", "?" + "q" * 4000))
    method = random.choice(("POST",) * 60 + ("GET", "PUT", "DELETE", "OPTIONS", "CONNECT", "post", "TRACE"))
    version = random.choice(("HTTP/1.1",) * 40 + ("HTTP/1.0", "HTTP/2.0", "HTTP/1.2"))
    headers = make_headers(random, key)
    framing = random.choice(
        ("length",) * 16 + ("chunked",) * 8 + ("both", "two", "short", "long", "none", "odd")
    )
    sent, complete = body, True
    match framing:
        case "length":
            headers.append(f"content-length: {len(body)}")
        case "chunked":
            headers.append(random.choice(("transfer-encoding: chunked", "Transfer-Encoding: CHUNKED")))
            sent = _chunks(random, body)
        case "both":
            headers += [f"content-length: {random.choice((0, len(body)))}", "transfer-encoding: chunked"]
            sent = _chunks(random, body)
        case "two":
            headers += [f"content-length: {len(body)}", f"content-length: {len(body) + 1}"]
            complete = False
        case "short":
            # What is left over looks like a request of its own.
            inner = b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nx-modelyard-tenant: spoofed\r\n\r\n"
            headers.append(f"content-length: {len(body)}")
            sent = body + inner
        case "long":
            headers.append(f"content-length: {len(body) + 100}")
            complete = False
        case "none":
            pass
        case "odd":
            headers.append(
                random.choice(
                    (
                        "transfer-encoding: xchunked",
                        "transfer-encoding: chunked, identity",
                        "transfer-encoding: gzip, chunked",
                        "transfer-encoding:\vchunked",
                        "content-length: +5",
                        "content-length: 0x5",
                        "content-length: -1",
                        "content-length: 99999999999999999999",
                        "content-length: 5, 5",
                    )
                )
            )
            complete = False
    if method == "CONNECT" or "expect: 100-continue" in headers:
        complete = False
    line_end = "\n" if random.random() < 0.02 else "\r\n"
    head = line_end.join([f"{method} {path} {version}", *headers, "", ""])
    return Wire(head.encode("utf-8", "surrogatepass") + sent, complete)
