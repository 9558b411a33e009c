"""Who reaches engine pods and whom they reach, as a table that is committed: `docs/network.md`.

`MODELYARD_UPDATE_GOLDEN=1 pytest tests/policy` writes it anew, for review in the diff.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.policy.actors import (
    API_SERVER,
    DATA_CENTRE,
    DNS,
    GATEWAY,
    INCOMING,
    INTERNET,
    KEDA,
    MEMBER,
    METADATA,
    OPERATOR,
    OUTGOING,
    OWN_NODE,
    PROMETHEUS,
    SITUATIONS,
    STRANGER,
    TEAM_POD,
    Situation,
)
from tests.policy.installed import CHART, install, read_manifests
from tests.policy.networkpolicy import Peer, is_allowed

PAGE = Path(__file__).parents[2] / "docs" / "network.md"
END = "<!-- end of the table -->\n"

INSTALLED = install(read_manifests(CHART))
OWN_GATEWAY, OWN_OPERATOR = INSTALLED.pods["gateway"], INSTALLED.pods["operator"]
ENGINE = SITUATIONS[0]
CHART_POLICIES = (*INSTALLED.policies, *ENGINE.policies)
"""With those of an engine that downloads: both ends of a connection have theirs."""

CONNECTIONS = (
    *((source, OWN_GATEWAY, "http") for source in (TEAM_POD, STRANGER, INTERNET, ENGINE.engine)),
    *((source, OWN_GATEWAY, "stats") for source in (OWN_OPERATOR, PROMETHEUS, TEAM_POD, ENGINE.engine)),
    *((source, OWN_OPERATOR, "xds") for source in (OWN_GATEWAY, PROMETHEUS, TEAM_POD, ENGINE.engine)),
    *((source, OWN_OPERATOR, "http") for source in (PROMETHEUS, KEDA, OWN_GATEWAY, TEAM_POD, ENGINE.engine)),
    *(
        (source, target, port)
        for source in (OWN_GATEWAY, OWN_OPERATOR)
        for target, port in (
            (ENGINE.engine, ENGINE.port),
            (ENGINE.engine, 22),
            (TEAM_POD, 8000),
            (DNS, 53),
            (API_SERVER, 6443),
            (API_SERVER, 443),
            (METADATA, 80),
            (DATA_CENTRE, 443),
            (DATA_CENTRE, 5432),
            (INTERNET, 443),
            (INTERNET, 80),
        )
    ),
)
"""Source, destination, and port by number or by the name that the destination gives it."""


def _number(target: Peer, port: str | int) -> int:
    return target.ports[port][1] if isinstance(port, str) else port


def chart_allows(source: Peer, target: Peer, port: str | int) -> bool:
    return is_allowed(source, target, "TCP", _number(target, port), CHART_POLICIES)


def build_chart_table() -> str:
    rows = [
        ("connection", "allowed"),
        ("---", "---"),
        *(
            (
                f"{_short(source)} → {_short(target)}, TCP {_number(target, port)}",
                _mark(chart_allows(source, target, port)),
            )
            for source, target, port in CONNECTIONS
        ),
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _short(peer: Peer) -> str:
    return "engine" if peer is ENGINE.engine else peer.name


def build_table() -> str:
    rows = [
        ["connection", *(item.name for item in SITUATIONS)],
        ["---", *("---" for _ in SITUATIONS)],
        *(
            [f"{source.name} → engine, {name}", *(_incoming(source, item, port) for item in SITUATIONS)]
            for name, port in (("its port", None), ("port 22", 22))
            for source in INCOMING
        ),
        *(
            [
                f"engine → {target.name}, {protocol} {port}",
                *(
                    _mark(is_allowed(item.engine, target, protocol, port, item.policies))
                    for item in SITUATIONS
                ),
            ]
            for target, protocol, port in OUTGOING
        ),
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _incoming(source, situation: Situation, port: int | None) -> str:
    return _mark(is_allowed(source, situation.engine, "TCP", port or situation.port, situation.policies))


def _mark(allowed: bool) -> str:
    return "yes" if allowed else "·"


@pytest.mark.parametrize(("name", "build"), [("engines", build_table), ("chart", build_chart_table)])
def test_the_page_shows_the_table(name: str, build: Callable[[], str]):
    text = PAGE.read_text(encoding="utf-8")
    begin = f"<!-- table of {name}: tests/policy -->\n"
    head, _, rest = text.partition(begin)
    shown, _, tail = rest.partition(END)
    table = build()
    if os.environ.get("MODELYARD_UPDATE_GOLDEN") == "1":
        PAGE.write_text(f"{head}{begin}{table}{END}{tail}", encoding="utf-8")
        shown = table
    assert shown.splitlines() == table.splitlines()


# What must hold is said here once more, by hand: a table that is written anew asserts nothing.


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda item: item.name)
def test_only_gateway_operator_and_the_own_node_reach_the_engine(situation: Situation):
    reaching = [
        source
        for source in INCOMING
        if is_allowed(source, situation.engine, "TCP", situation.port, situation.policies)
    ]
    # Pods of a group work together, and a policy cannot tell one group of a deployment from another.
    members = [MEMBER] if situation.name.startswith("two nodes") else []
    assert reaching == [GATEWAY, OPERATOR, *members, OWN_NODE]
    for port in (22, 80, 8081, 10250, 65535):
        for source in (GATEWAY, OPERATOR):
            assert not is_allowed(source, situation.engine, "TCP", port, situation.policies)
    assert not is_allowed(GATEWAY, situation.engine, "UDP", situation.port, situation.policies)


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda item: item.name)
def test_an_engine_reaches_no_part_of_the_cluster_but_dns(situation: Situation):
    for target, protocol, port in OUTGOING:
        inside = target.namespace is not None or target in (API_SERVER, METADATA)
        # Whoever opens the network of a hub mirror opens what else is in it.
        opened = situation.name == "hub mirror inside" and (target, port) == (API_SERVER, 443)
        opened |= situation.name.startswith("two nodes") and target == MEMBER
        if inside and port != 53:
            found = is_allowed(situation.engine, target, protocol, port, situation.policies)
            assert found is opened, target.name


@pytest.mark.parametrize("name", ["claim", "sovereign"])
def test_without_a_download_nothing_leaves_the_pod(name: str):
    (situation,) = (item for item in SITUATIONS if item.name == name)
    reached = {
        (target.name, protocol, port)
        for target, protocol, port in OUTGOING
        if is_allowed(situation.engine, target, protocol, port, situation.policies)
    }
    # No policy comes between a pod and its own node.
    assert reached == {(OWN_NODE.name, "TCP", 10250)}


def test_a_group_that_downloads_nothing_reaches_itself_and_the_resolver():
    (situation,) = (item for item in SITUATIONS if item.name == "two nodes, sovereign")
    reached = {
        (target.name, protocol, port)
        for target, protocol, port in OUTGOING
        if is_allowed(situation.engine, target, protocol, port, situation.policies)
    }
    assert reached == {
        (OWN_NODE.name, "TCP", 10250),
        (MEMBER.name, "TCP", 29501),
        (DNS.name, "UDP", 53),
        (DNS.name, "TCP", 53),
    }


def test_a_download_is_https_to_the_internet():
    (situation,) = (item for item in SITUATIONS if item.name == "vLLM, hub")
    for protocol, port, allowed in (
        ("TCP", 443, True),
        ("UDP", 443, False),
        ("TCP", 80, False),
        ("TCP", 8443, False),
    ):
        assert is_allowed(situation.engine, INTERNET, protocol, port, situation.policies) is allowed


def test_an_installation_works_with_the_policies_of_its_chart():
    for source, target, port in (
        (STRANGER, OWN_GATEWAY, "http"),
        (OWN_GATEWAY, OWN_OPERATOR, "xds"),
        (OWN_OPERATOR, OWN_GATEWAY, "stats"),
        (OWN_OPERATOR, API_SERVER, 6443),
        *((pod, ENGINE.engine, ENGINE.port) for pod in (OWN_GATEWAY, OWN_OPERATOR)),
        *((pod, DNS, 53) for pod in (OWN_GATEWAY, OWN_OPERATOR)),
    ):
        assert chart_allows(source, target, port), (source.name, target.name, port)


def test_nobody_else_reaches_what_is_inside():
    for source in (TEAM_POD, STRANGER, INTERNET, KEDA, ENGINE.engine):
        for target, port in ((OWN_OPERATOR, "xds"), (OWN_OPERATOR, "http"), (OWN_GATEWAY, "stats")):
            assert not chart_allows(source, target, port), (source.name, target.name, port)
    for source in (OWN_GATEWAY, OWN_OPERATOR):
        assert not chart_allows(source, METADATA, 80)
        assert not chart_allows(source, TEAM_POD, 8000)
        assert not chart_allows(source, ENGINE.engine, 22)
    assert not chart_allows(OWN_GATEWAY, API_SERVER, 6443)
