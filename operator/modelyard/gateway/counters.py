"""Counters of the gateway: what one Envoy says, and totals over all Envoys that survive their restarts."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar
from urllib.parse import unquote

import aiohttp

from modelyard.core.answering import Attempts
from modelyard.core.budget.judge import READ_SECONDS
from modelyard.core.routing import EXTERNAL_PREFIX
from modelyard.render.envoy.metering import ESTIMATED_REQUESTS, ESTIMATED_TOKENS, TOKENS
from modelyard.render.envoy.names import METADATA, decode_stat, encode_stat

STATS_PATH = "/stats/prometheus"
"""Page of the stats listener, in Prometheus' text format."""

START_SECONDS = 2
"""Seconds by which an Envoy may be older than the time since the last reading and still have served nothing before it:
it has no routes until the operator has sent them, which is within a second of its start (`retry_back_off` of the
bootstrap)."""

TIMED_OUT = "504"
"""Response code of requests whose time ended while a target had them."""

_ARRIVALS = "envoy_modelyard_arrivals_http_local_rate_limit_enabled"
_ENDED = "envoy_modelyard_ended"
_REQUESTS = "envoy_modelyard_requests"
_TOKENS = {f"envoy_modelyard_{name}": name for name in (*TOKENS, *ESTIMATED_TOKENS, ESTIMATED_REQUESTS)}
"""Counters of tokens by the names of their samples."""
_UPTIME = "envoy_server_uptime"
_FAILURES = (
    "upstream_cx_connect_fail",
    "upstream_cx_destroy_remote_with_active_rq",
    "upstream_rq_per_try_timeout",
)
"""Envoy's counters of a cluster's attempts that no reply came of: no connection, one that broke with a request on it,
and an answer that did not begin in time. The end of the whole request's time is counted as a reply of 504."""
_LOST = _FAILURES[1:]
"""Those of them that had been sent."""
_PROVIDERS = rf"^cluster\.{encode_stat(EXTERNAL_PREFIX)}[^.]+\."
_FILTER = (
    rf"^{METADATA}|^server\.uptime$"
    rf"|{_PROVIDERS}(upstream_rq_total|{'|'.join(_FAILURES)})$"
    rf"|{_PROVIDERS}(retry\.)?upstream_rq_[0-9]+$"
)
"""Names of the statistics on the page that is asked for: replies that led to a further attempt are `retry`."""

# Envoy writes one sample a line and escapes label values as Prometheus prescribes
# (https://prometheus.io/docs/instrumenting/exposition_formats/). A full parser takes 20 times as long, and this page
# is read every few seconds from every Envoy.
_SAMPLE = re.compile(r"^(envoy_modelyard_[a-z_]+|envoy_server_uptime)\{(.*)\} (\d+)$", re.MULTILINE)
_ATTEMPT = re.compile(r"^envoy_cluster_(?:retry_)?(upstream_[a-z_]+)\{(.*)\} (\d+)$", re.MULTILINE)
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')
Key = TypeVar("Key")

_ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


@dataclass(frozen=True, slots=True, order=True)
class Answered:
    """Labels of a counter of answered requests or of tokens."""

    route: str
    """`Route.name`; empty for requests that no route matched."""
    model: str
    """The name that the client sent; empty if no route matched."""
    deployment: str
    """`namespace/name` of the LLMDeployment, or `external_key` of the provider's model, that answered; empty if none
    did."""
    tenant: str = ""
    """Name of the LLMTenant that asked; empty: anonymous. `OTHER_TENANTS`: one of those beyond the bound."""


@dataclass(frozen=True, slots=True)
class GatewayCounters:
    """Counts since the start of one Envoy, or totals over several."""

    arrivals: Mapping[str, int] = field(default_factory=dict)
    """Requests by `Route.name`, or by `rule_name` of what a rule took, that passed the model scan and limits, counted
    before any hold."""
    requests: Mapping[tuple[Answered, str], int] = field(default_factory=dict)
    """Finished requests by labels and class of the response code: `2xx`, `4xx`, `5xx`; `0xx`: the client left.
    `TIMED_OUT` is a class of its own."""
    prompt_tokens: Mapping[Answered, int] = field(default_factory=dict)
    """Tokens as reported by the engine, those that it found in a cache included."""
    cached_tokens: Mapping[Answered, int] = field(default_factory=dict)
    """Those of them that it found in a cache."""
    completion_tokens: Mapping[Answered, int] = field(default_factory=dict)
    estimated_requests: Mapping[Answered, int] = field(default_factory=dict)
    """Requests whose answer ended before it told its usage; their tokens are estimates, not part of those above."""
    estimated_prompt_tokens: Mapping[Answered, int] = field(default_factory=dict)
    estimated_completion_tokens: Mapping[Answered, int] = field(default_factory=dict)
    ended: Mapping[str, int] = field(default_factory=dict)
    """Those of the arrivals that ended, by the same names."""
    attempts: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """What became of attempts at providers' models, by `external_key` and field of `Attempts`."""
    uptime: int | None = None
    """Seconds since the process started, up to 5 s old (`stats_flush_interval`); None if the page does not say."""


def parse_counters(text: str) -> GatewayCounters:
    """Return the counters on one page of Envoy's statistics; other statistics are ignored."""
    arrivals: dict[str, int] = {}
    ended: dict[str, int] = {}
    requests: dict[tuple[Answered, str], int] = {}
    tokens: dict[str, dict[Answered, int]] = {name: {} for name in _TOKENS.values()}
    uptime = None
    for name, raw, digits in _SAMPLE.findall(text):
        (answered, code), value = _read_labels(raw), int(digits)
        if name == _ARRIVALS:
            arrivals[answered.route] = value
        elif name == _ENDED:
            if answered.route:
                ended[answered.route] = value
        elif name == _REQUESTS:
            requests[answered, code] = requests.get((answered, code), 0) + value
        elif name in _TOKENS:
            tokens[_TOKENS[name]][answered] = value
        elif name == _UPTIME:
            uptime = value
    # Anthropic's API tells cached tokens beside those of the prompt, not as a part of them.
    cached = tokens["cache_read_tokens"]
    prompt = _sum(tokens["prompt_tokens"], cached, tokens["cache_write_tokens"])
    return GatewayCounters(
        arrivals,
        requests,
        prompt,
        _sum(tokens["cached_tokens"], cached),
        tokens["completion_tokens"],
        tokens[ESTIMATED_REQUESTS],
        tokens["estimated_prompt_tokens"],
        tokens["estimated_completion_tokens"],
        ended,
        _parse_attempts(text),
        uptime,
    )


def _parse_attempts(text: str) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for name, raw, digits in _ATTEMPT.findall(text):
        labels = {key: _unescape(value) for key, value in _LABEL.findall(raw)}
        cluster = decode_stat(labels.get("envoy_cluster_name", ""))
        if not cluster.startswith(EXTERNAL_PREFIX):
            continue
        outcomes = (
            _find_outcome(name, labels.get("envoy_response_code", "")),
            "lost" if name in _LOST else "",
        )
        for outcome in filter(None, outcomes):
            counts[cluster, outcome] = counts.get((cluster, outcome), 0) + int(digits)
    return counts


def _find_outcome(name: str, code: str) -> str:
    """Return the field of `Attempts` that a counter of a cluster belongs to; empty: to none."""
    if name == "upstream_rq_total":
        return "sent"
    if name in _FAILURES:
        return "failed"
    if name != "upstream_rq" or not code:
        return ""
    outcomes = {"401": "refused", "403": "refused", "429": "limited", "500": "errors"}
    return outcomes.get(code, "failed" if code >= "500" else "answered")


def sum_attempts(counters: GatewayCounters) -> dict[str, Attempts]:
    """Return what became of attempts at providers' models, by `external_key`."""
    found: dict[str, dict[str, int]] = {}
    for (cluster, outcome), value in counters.attempts.items():
        found.setdefault(cluster, {})[outcome] = value
    return {cluster: Attempts(**counts) for cluster, counts in found.items()}


def _sum(*counts: Mapping[Answered, int]) -> dict[Answered, int]:
    sums: dict[Answered, int] = {}
    for count in counts:
        for key, value in count.items():
            sums[key] = sums.get(key, 0) + value
    return sums


async def read_counters(session: aiohttp.ClientSession, url: str) -> GatewayCounters:
    """Read the counters of the Envoy whose stats listener is at `url` (scheme, address and port).

    Raises aiohttp.ClientError if it does not answer properly, TimeoutError if it takes too long.
    """
    timeout = aiohttp.ClientTimeout(total=READ_SECONDS)
    page = f"{url}{STATS_PATH}"
    async with session.get(page, params={"filter": _FILTER}, timeout=timeout) as reply:
        reply.raise_for_status()
        text = await reply.text()
    # Pages of many tenants have megabytes, and the loop has other things to do.
    return await asyncio.to_thread(parse_counters, text)


@dataclass(frozen=True, slots=True)
class CounterTotals:
    """Totals that only grow, although each Envoy counts from zero after a restart and may go away.

    Immutable: `advance` returns the next state.
    """

    totals: GatewayCounters = field(default_factory=GatewayCounters)
    last: Mapping[str, GatewayCounters] = field(default_factory=dict)
    """What each Envoy said last, by node id."""

    def advance(self, node_id: str, counters: GatewayCounters, since: float | None = None) -> "CounterTotals":
        """Return the totals after a read of one Envoy.

        A counter below its last value has started again at zero, so all of it is new. `since` is the time in seconds
        since anybody was shown totals, None if nobody was. What an Envoy that is not known had counted before is not
        new: one that was there longer counts from here.
        """
        age = counters.uptime
        if node_id not in self.last and since is not None and age is not None and age > since + START_SECONDS:
            return CounterTotals(self.totals, {**self.last, node_id: counters})
        before = self.last.get(node_id, GatewayCounters())
        total = self.totals
        totals = GatewayCounters(
            arrivals=_add(total.arrivals, before.arrivals, counters.arrivals),
            ended=_add(total.ended, before.ended, counters.ended),
            attempts=_add(total.attempts, before.attempts, counters.attempts),
            requests=_add(total.requests, before.requests, counters.requests),
            prompt_tokens=_add(total.prompt_tokens, before.prompt_tokens, counters.prompt_tokens),
            cached_tokens=_add(total.cached_tokens, before.cached_tokens, counters.cached_tokens),
            completion_tokens=_add(
                total.completion_tokens, before.completion_tokens, counters.completion_tokens
            ),
            estimated_requests=_add(
                total.estimated_requests, before.estimated_requests, counters.estimated_requests
            ),
            estimated_prompt_tokens=_add(
                total.estimated_prompt_tokens,
                before.estimated_prompt_tokens,
                counters.estimated_prompt_tokens,
            ),
            estimated_completion_tokens=_add(
                total.estimated_completion_tokens,
                before.estimated_completion_tokens,
                counters.estimated_completion_tokens,
            ),
        )
        return CounterTotals(totals, {**self.last, node_id: counters})

    def forget(self, node_id: str) -> "CounterTotals":
        """Return the totals without the memory of an Envoy that will not come back; its counts stay."""
        return CounterTotals(self.totals, {key: value for key, value in self.last.items() if key != node_id})


def _add(totals: Mapping[Key, int], before: Mapping[Key, int], now: Mapping[Key, int]) -> dict[Key, int]:
    result = dict(totals)
    for key, value in now.items():
        last = before.get(key, 0)
        result[key] = result.get(key, 0) + (value - last if value >= last else value)
    return result


@lru_cache(maxsize=1 << 16)
def _read_labels(raw: str) -> tuple[Answered, str]:
    """Return the labels of a sample, and the class of its response code.

    Kept, because every page has the same ones: all counters of 1,000 tenants and 10 models have 20,000 texts.
    """
    labels = {key: _unescape(value) for key, value in _LABEL.findall(raw)}
    answered = Answered(
        route=decode_stat(labels.get("route", "")),
        model=unquote(decode_stat(labels.get("model", ""))),
        deployment=labels.get("deployment", ""),
        tenant=labels.get("tenant", ""),
    )
    code = labels.get("code", "0")
    return answered, code if code == TIMED_OUT else f"{code[0]}xx"


def _unescape(raw: str) -> str:
    return re.sub(r"\\.", lambda match: _ESCAPES.get(match.group(), match.group()), raw)
