"""What each part of our gateway's configuration costs: `python -m benchmarks.gateway.filters`.

Two ladders of Envoys with one worker thread that answer the same requests. One goes up from a plain Envoy, a filter at
a time; the other goes down from our gateway, where each Envoy lacks one part. All run at once and get their loads in
turn, round after round. The figure is processor time of the Envoy for each request, the least of all rounds: what else
runs on the machine can only add to it.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

from benchmarks.gateway.bodies import CHAT, LOOPBACK, PROMPT, client_name
from benchmarks.gateway.client import drive
from benchmarks.gateway.contenders import (
    OURS,
    PLAIN,
    Contender,
    gateway,
    models_table,
    plain_configuration,
    ready,
    running,
    upstream,
)
from benchmarks.gateway.rounds import Row, Told, microseconds, turned
from dev.cluster.processes import Component
from dev.envoy.binary import envoy_binary
from dev.envoy.process import free_port
from modelyard.core.routing import Endpoint
from modelyard.gateway import resources
from modelyard.render.envoy import parts
from modelyard.render.envoy.clusters import cluster
from modelyard.render.envoy.forwarding import forward
from modelyard.render.envoy.listener import listener
from modelyard.render.envoy.metering import streamed_usage, unary_usage
from modelyard.render.envoy.settings import MEBIBYTE
from modelyard.render.envoy.typed import Json, extension

MODELS = 20
"""Models in the table. One is found in a hash map, so more cost no more."""
_NAME = client_name(MODELS - 1)
_LUA = "envoy.filters.http.lua"
_BUFFER_BYTES = 32 * MEBIBYTE
"""As ours may hold."""

Edit = Callable[[Json], Json]


ROWS = (
    Row("chat-1", "2 KB, one at a time", CHAT, 1, 500, 2),
    Row("chat-16", "2 KB, 16 at a time", CHAT, 16, 500, 32),
    Row("prompt-8", "300 KB, 8 at a time", PROMPT, 8, 100, 16),
)


def _unchanged(value: Json) -> Json:
    return value


@dataclass(frozen=True, slots=True)
class Variant:
    """Our gateway with something taken away."""

    name: str
    listener: Edit = _unchanged
    cluster: Edit = _unchanged
    route: Edit = _unchanged
    alike: bool = False
    """Whether engines answer to the names that clients send."""


def _manager(value: Json) -> Json:
    manager: Json = value["filter_chains"][0]["filters"][0]["typed_config"]
    return manager


def without_filters(*names: str) -> Edit:
    """Return what takes filters out of the listener's chain. Raises ValueError if one is not there."""

    def edit(value: Json) -> Json:
        manager = _manager(value)
        if missing := set(names) - {item["name"] for item in manager["http_filters"]}:
            raise ValueError(f"no such filters: {missing}")
        manager["http_filters"] = [item for item in manager["http_filters"] if item["name"] not in names]
        return value

    return edit


def without(*fields: str) -> Edit:
    """Return what takes fields out of the connection manager. Raises KeyError if one is not there."""

    def edit(value: Json) -> Json:
        for name in fields:
            del _manager(value)[name]
        return value

    return edit


def script(source: str) -> Edit:
    """Return what puts another script in the place of the request scan."""

    def edit(value: Json) -> Json:
        for item in _manager(value)["http_filters"]:
            if item["name"] == _LUA:
                item["typed_config"]["default_source_code"]["inline_string"] = source
        return value

    return edit


def without_attempt_filters(*names: str) -> Edit:
    """Return what takes filters out of a cluster's chain."""

    def edit(value: Json) -> Json:
        options = next(iter(value["typed_extension_protocol_options"].values()))
        options["http_filters"] = [item for item in options["http_filters"] if item["name"] not in names]
        return value

    return edit


def without_retries(value: Json) -> Json:
    """Take the retries out of a route: the router keeps no copy of the body."""
    del value["route"]["retry_policy"]
    return value


VARIANTS = (
    Variant(OURS),
    Variant(
        "- scan (one route for all)",
        script(
            "function envoy_on_request(h) h:body() "
            f"h:headers():replace('x-modelyard-route', 'model:{_NAME}') h:clearRouteCache() end"
        ),
        # Its own script would read the body for what the scan has not found.
        cluster=without_attempt_filters(_LUA),
        alike=True,
    ),
    Variant("- rewrite (names alike)", alike=True),
    Variant("- attempt's script", cluster=without_attempt_filters(_LUA), alike=True),
    Variant(
        "- attempt's script and headers",
        cluster=without_attempt_filters(_LUA, "envoy.filters.http.header_mutation"),
        alike=True,
    ),
    Variant("- retries", route=without_retries),
    Variant("- all counters at the end", without("access_log")),
    Variant("- usage of whole answers", without_filters("envoy.filters.http.json_to_metadata")),
    Variant("- usage of streams", without_filters("envoy.filters.http.sse_to_metadata")),
    Variant("- count of arrivals", without_filters("envoy.filters.http.local_ratelimit")),
    Variant("- name of the arrival", without_filters("modelyard.arrived")),
    Variant("- hold", without_filters("envoy.filters.http.on_demand")),
    Variant("- health check", without_filters("envoy.filters.http.health_check")),
    Variant("- removal of clients' headers", without("early_header_mutation_extensions")),
)
"""What is switched off here in any case (pickers, limits, affinity) is no part of the ladder."""


def _lua(source: str) -> Json:
    return extension(
        _LUA, "envoy.extensions.filters.http.lua.v3.Lua", {"default_source_code": {"inline_string": source}}
    )


def _request_rule() -> Json:
    rule = {
        "selectors": [{"key": "model"}],
        "on_present": {"metadata_namespace": "modelyard", "key": "model"},
    }
    return extension(
        "envoy.filters.http.json_to_metadata",
        "envoy.extensions.filters.http.json_to_metadata.v3.JsonToMetadata",
        {"request_rules": {"rules": [rule]}},
    )


_RETRIES = "+ retries"
FLOOR: Mapping[str, Sequence[Json]] = {
    PLAIN: (),
    "+ Lua that does nothing": (_lua("function envoy_on_request(h) end"),),
    "+ Lua that does nothing, on both ways": (
        _lua("function envoy_on_request(h) end function envoy_on_response(h) end"),
    ),
    "+ Lua that waits for the body": (_lua("function envoy_on_request(h) h:body() end"),),
    "+ Lua that copies the body": (
        _lua(
            "function envoy_on_request(h) local b = h:body() local n = b:length() "
            "for i = 0, n - 1, 65536 do b:getBytes(i, math.min(65536, n - i)) end end"
        ),
    ),
    "+ Lua that writes the body again": (
        _lua("function envoy_on_request(h) local b = h:body() b:setBytes(b:getBytes(0, b:length())) end"),
    ),
    _RETRIES: (),
    "+ Envoy's JSON parser on requests": (_request_rule(),),
    "+ Envoy's JSON parser on whole answers": (unary_usage(),),
    "+ Envoy's parser of streams": (streamed_usage(),),
}
"""Filters in front of the router of a plain Envoy."""


@asynccontextmanager
async def _plain(folder: Path, engine: int, name: str, filters: Sequence[Json]) -> AsyncIterator[Contender]:
    folder.mkdir(parents=True)  # noqa: ASYNC240  (nothing else runs meanwhile)
    port = free_port()
    configuration = plain_configuration(port, engine)
    added = configuration["static_resources"]["listeners"][0]
    if name != PLAIN:
        # A long body must fit.
        added["per_connection_buffer_limit_bytes"] = _BUFFER_BYTES
    _manager(added)["http_filters"][:0] = filters
    if name == _RETRIES:
        route = _manager(added)["route_config"]["virtual_hosts"][0]["routes"][0]["route"]
        route["retry_policy"] = {"retry_on": "connect-failure,refused-stream,reset"}
    file = folder / "envoy.json"
    file.write_text(json.dumps(configuration), encoding="utf-8")
    command = [str(envoy_binary()), "--config-path", str(file), "--concurrency", "1"]
    command += ["--disable-hot-restart", "--log-level", "warning"]
    async with running(Component(name, command, folder / "envoy.log", ready(port))) as process:
        yield Contender(name, port, process.pid or 0)


@contextmanager
def _edited(variant: Variant) -> Iterator[None]:
    with (
        patch.object(resources, "listener", lambda settings: variant.listener(listener(settings))),
        patch.object(resources, "cluster", lambda up, settings: variant.cluster(cluster(up, settings))),
        patch.object(parts, "forward", lambda *given: variant.route(forward(*given))),
    ):
        yield


@asynccontextmanager
async def _ours(folder: Path, engine: int, variant: Variant) -> AsyncIterator[Contender]:
    table = models_table(range(MODELS), Endpoint(LOOPBACK, engine))
    if variant.alike:
        alike = {
            key: replace(item, model=client_name(number))
            for number, (key, item) in enumerate(table.upstreams.items())
        }
        table = replace(table, upstreams=alike)
    async with AsyncExitStack() as stack:
        with _edited(variant):
            ours = await stack.enter_async_context(gateway(folder))
            await ours.apply(table)
        port, pid = ours.envoy.listener_port, ours.envoy.pid
        yield Contender(variant.name, port, pid, rewrites=not variant.alike)


def _measure(row: Row, contender: Contender) -> float:
    """Return microseconds of processor time for each request."""
    return microseconds(row.checked(contender, drive(row.load(contender, _NAME))))


Measurements = dict[str, dict[str, list[float]]]
"""Microseconds by title of the load and name of the Envoy, one for each round."""


async def measure(words: Sequence[str], rounds: int, rows: Sequence[Row], told: Told) -> Measurements:
    """Measure a plain Envoy, our gateway, and the others whose names hold one of these words; without words all."""

    def wanted(name: str) -> bool:
        return not words or name in (PLAIN, OURS) or any(word in name for word in words)

    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as temporary:
        folder = Path(temporary)
        async with upstream(folder) as engine, AsyncExitStack() as stack:
            starts = [
                *(
                    _plain(folder / f"plain-{number}", engine, name, filters)
                    for number, (name, filters) in enumerate(FLOOR.items())
                    if wanted(name)
                ),
                *(
                    _ours(folder / f"ours-{number}", engine, variant)
                    for number, variant in enumerate(VARIANTS)
                    if wanted(variant.name)
                ),
            ]
            contenders = [await stack.enter_async_context(start) for start in starts]
            found: Measurements = {row.title: {one.name: [] for one in contenders} for row in rows}
            for number in range(rounds):
                for row in rows:
                    for one in turned(contenders, number):
                        found[row.title][one.name].append(await asyncio.to_thread(_measure, row, one))
                told(f"round {number + 1} of {rounds}")
            return found


def table(measured: Measurements) -> str:
    """Return the least of each figure, and how far it is from the top of its ladder, as a Markdown table."""
    titles = list(measured)
    lines = [
        "|  | " + " | ".join(f"{title}, us | " for title in titles) + " |",
        "| --- " * (1 + 2 * len(titles)) + "|",
    ]
    for name in measured[titles[0]]:
        cells = [name]
        base = OURS if name.startswith("-") else PLAIN
        for title in titles:
            least, reference = (min(measured[title][each]) for each in (name, base))
            cells += [f"{least:.0f}", "" if name == base else f"{least - reference:+.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="measure only what has one of these words in its name")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--quick", action="store_true", help="a few requests: shows that it runs, no results")
    options = parser.parse_args()
    # A shell lets what it runs in the background ignore Ctrl-C; everything that was started is stopped.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    rows = [replace(row, requests=8) for row in ROWS] if options.quick else ROWS
    rounds = 1 if options.quick else options.rounds
    measured = asyncio.run(measure(options.words, rounds, rows, lambda what: print(what, file=sys.stderr)))
    sys.stdout.write(table(measured) + "\n")


if __name__ == "__main__":
    main()
