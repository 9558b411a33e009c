"""Who reaches engine pods and whom they reach, as a table that is committed: `docs/network.md`.

`MODELYARD_UPDATE_GOLDEN=1 pytest tests/policy` writes it anew, for review in the diff.
"""

import os
from pathlib import Path

import pytest

from tests.policy.actors import (
    API_SERVER,
    GATEWAY,
    INCOMING,
    INTERNET,
    METADATA,
    OPERATOR,
    OUTGOING,
    OWN_NODE,
    SITUATIONS,
    Situation,
)
from tests.policy.networkpolicy import is_allowed

PAGE = Path(__file__).parents[2] / "docs" / "network.md"
BEGIN, END = "<!-- table: tests/policy -->\n", "<!-- end of the table -->\n"


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


def test_the_page_shows_the_table():
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    shown, _, tail = rest.partition(END)
    table = build_table()
    if os.environ.get("MODELYARD_UPDATE_GOLDEN") == "1":
        PAGE.write_text(f"{head}{BEGIN}{table}{END}{tail}", encoding="utf-8")
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
    assert reaching == [GATEWAY, OPERATOR, OWN_NODE]
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


def test_a_download_is_https_to_the_internet():
    (situation,) = (item for item in SITUATIONS if item.name == "vLLM, hub")
    for protocol, port, allowed in (
        ("TCP", 443, True),
        ("UDP", 443, False),
        ("TCP", 80, False),
        ("TCP", 8443, False),
    ):
        assert is_allowed(situation.engine, INTERNET, protocol, port, situation.policies) is allowed
