"""Requests go on being answered while parts of a real cluster are replaced, killed and drained."""

import json

from dev.cluster.waiting import wait_until
from tests.e2e_node.support import (
    CHART_README,
    INSTALL,
    POD_TIMEOUT_S,
    README,
    SYSTEM,
    TEAM,
    UPGRADE,
    commands_of,
    model,
)


def test_rolling_update_under_load_fails_no_request(bed, gemma, traffic):
    before = set(bed.wait_serving(gemma, 2))
    with traffic() as load:
        bed.apply(model(gemma, replicas=2, engine={"name": "LlamaCpp", "parameters": {"parallel": "3"}}))
        wait_until(
            lambda: not before & {pod["metadata"]["name"] for pod in bed.engines(gemma)},
            "the old pods are gone",
            timeout_s=2 * POD_TIMEOUT_S,
            interval_s=0.5,
        )
        load.wait_more()
    assert load.failures == []
    arguments = [argument for pod in bed.engines(gemma) for argument in pod["spec"]["containers"][0]["args"]]
    assert arguments[arguments.index("--parallel") + 1] == "3"
    bed.wait_serving(gemma, 2)


def test_killed_engine_costs_at_most_what_it_was_answering(bed, gemma, traffic):
    victim = bed.wait_serving(gemma, 2)[0]
    with traffic() as load:
        bed.kubectl("delete", "pod", victim, "-n", TEAM, "--grace-period=0", "--force")
        load.wait_more()
        bed.wait_serving(gemma, 2)
        load.wait_more()
    assert len(load.failures) <= load.clients, load.failures


def test_node_drain_fails_no_request(bed, gemma, traffic):
    bed.wait_serving(gemma, 2)
    node = bed.cluster.nodes[1].name
    try:
        with traffic() as load:
            bed.kubectl("drain", node, "--delete-emptydir-data", f"--timeout={2 * POD_TIMEOUT_S}s")
            bed.wait_serving(gemma, 2)
            load.wait_more()
        assert {pod["spec"]["nodeName"] for pod in bed.engines(gemma)} == {bed.cluster.nodes[0].name}
        assert load.failures == []
    finally:
        bed.kubectl("uncordon", node)
    bed.wait_rolled_out(SYSTEM, TEAM)


def test_killed_operator_fails_no_request_and_comes_back(bed, gemma, traffic):
    (operator,) = bed.list("pods", SYSTEM, "app.kubernetes.io/component=operator")
    with traffic() as load:
        bed.kubectl(
            *("delete", "pod", operator["metadata"]["name"], "-n", SYSTEM), "--grace-period=0", "--force"
        )
        load.wait_more()
        bed.wait_rolled_out(SYSTEM)
        # A change that only an operator can carry out.
        bed.kubectl("scale", "llmdeployment", gemma, "-n", TEAM, "--replicas=1")
        bed.wait_serving(gemma, 1)
        bed.kubectl("scale", "llmdeployment", gemma, "-n", TEAM, "--replicas=2")
        bed.wait_serving(gemma, 2)
    assert load.failures == []


def test_helm_upgrade_fails_no_request(bed, gemma, traffic, terminal):
    assert "To upgrade, repeat the last two commands." in README.read_text()
    bed.wait_serving(gemma, 2)
    pods = {pod["metadata"]["uid"] for pod in bed.engines(gemma)}
    with traffic() as load:
        for command in [*commands_of(README, INSTALL)[-2:], *commands_of(CHART_README, UPGRADE)]:
            terminal.run(command)
        # The same, with a change of both programs.
        bed.run(
            *("helm", "upgrade", "modelyard", "charts/modelyard", "-n", SYSTEM, "--wait"),
            *("--reset-then-reuse-values", "--set", "operator.logLevel=DEBUG", "--set", "gateway.workers=1"),
            f"--timeout={POD_TIMEOUT_S}s",
        )
        load.wait_more()
    assert load.failures == []
    assert {pod["metadata"]["uid"] for pod in bed.engines(gemma)} == pods
    history = json.loads(bed.run("helm", "history", "modelyard", "-n", SYSTEM, "-o", "json"))
    assert [entry["status"] for entry in history][-1] == "deployed"
