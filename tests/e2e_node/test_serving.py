"""Real containers of a real model, behind the gateway that Helm installed."""

import json

from dev.cluster.waiting import wait_until
from tests.e2e_node.support import POD_TIMEOUT_S, SYSTEM, TEAM, TENANT, is_ready, model, own


def test_everything_runs_under_restricted_pod_security(bed, gemma):
    """Admission lets nothing else in; what is seen here is that it is on, and that every pod of ours is Ready."""
    namespaces = {
        item["metadata"]["name"]: item["metadata"]["labels"] for item in bed.list("namespaces", "default")
    }
    for namespace in (SYSTEM, TEAM):
        assert namespaces[namespace]["pod-security.kubernetes.io/enforce"] == "restricted"
        pods = bed.list("pods", namespace)
        # Envoys of before the upgrade may still be leaving; they tell everybody not to send them anything.
        staying = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        assert staying
        assert [pod["metadata"]["name"] for pod in staying if not is_ready(pod)] == []


def test_gemma_answers_through_the_gateway(bed, gemma):
    status, body = bed.chat(gemma)
    assert status == 200, body
    assert body["choices"][0]["message"]["content"].strip()
    assert body["usage"]["completion_tokens"] == 4


def test_kubectl_has_the_command_line_as_a_plugin(bed, gemma):
    """What somebody on call types, with logs that come from real kubelets."""
    serving = bed.wait_serving(gemma, 2)

    def level() -> str:
        told = bed.kubectl("modelyard", "status", gemma, "-n", TEAM, "-o", "json")
        (row,) = json.loads(told)["deployments"]
        return row["level"]

    wait_until(lambda: level() == "Healthy", f"{gemma} is healthy", timeout_s=POD_TIMEOUT_S)
    told = bed.kubectl("modelyard", "explain", f"llmdep/{TEAM}/{gemma}", "-o", "json")
    assert {pod["name"] for pod in json.loads(told)["pods"]} == set(serving)
    lines = bed.kubectl("modelyard", "logs", "llmdep", gemma, "-n", TEAM, "--tail", "3").splitlines()
    assert {line[1:].partition("] ")[0] for line in lines} == set(serving)


def test_gateway_asks_for_a_key(bed, gemma):
    assert bed.chat(gemma, key="sk-nobodys")[0] == 401


def test_routes_providers_and_budgets_are_looked_after(bed, gemma):
    """Here because of their rights, by which Helm lets the operator write what it says of them."""
    target = [{"deployment": gemma}]
    price = {"inputPerMillion": "1", "outputPerMillion": "2"}
    provider = {
        "baseURL": "https://api.example.com/v1",
        "secretRef": {"name": TENANT, "key": "key"},
        "models": [{"name": "large", "price": price}],
    }
    objects = (
        own("LLMRoute", "front", TEAM, {"model": "front", "targets": target}),
        own("LLMProvider", "provider", SYSTEM, provider),
        own("LLMBudget", "all", SYSTEM, {"amount": "1000", "period": "Day", "hard": {"action": "Refuse"}}),
    )
    bed.apply(*objects)
    for item in objects:
        name = f"{item['kind'].lower()}/{item['metadata']['name']}"
        place = ("-n", item["metadata"]["namespace"], f"--timeout={POD_TIMEOUT_S}s")
        bed.kubectl("wait", "--for=condition=Ready", name, *place)
    assert bed.chat("front")[0] == 200


def test_model_wakes_for_a_request_sleeps_and_wakes_again(bed):
    name = "sleeper"
    bed.apply(model(name, scaling={"min": 0, "max": 1, "idleAfter": "10s"}))
    try:
        for _ in range(2):
            wait_until(lambda: asleep(bed, name), f"{name} sleeps", timeout_s=POD_TIMEOUT_S, interval_s=0.5)
            status, body = bed.chat(name)
            assert status == 200, body
            assert bed.serving(name)
    finally:
        bed.kubectl("delete", "llmdeployment", name, "-n", TEAM)


def asleep(bed, name) -> bool:
    """Tell whether a model says that it sleeps, and has no pod."""
    for item in bed.list("llmdeployments", TEAM):
        for condition in item.get("status", {}).get("conditions", []):
            if item["metadata"]["name"] == name and condition["reason"] == "ScaledToZero":
                return not bed.engines(name)
    return False
