"""Pods on local nodes: from the scheduler's binding to a served request."""

from __future__ import annotations

import base64

from dev.nodes import LocalNodes, parse_environment_rule
from tests.local_nodes.support import (
    LLAMA_IMAGE,
    MODEL,
    Cluster,
    condition,
    engine,
    engine_status,
    environment_of,
    fetch,
    is_ready,
    pid_of,
    pod,
    probe,
    waits_for,
)


async def test_deployment_pod_is_ready_only_after_both_probes(
    cluster: Cluster, nodes: LocalNodes, cpu_node: str
) -> None:
    nodes.rules.append(parse_environment_rule(f"model={MODEL}:STANDIN_LOAD_SECONDS=2"))
    template = pod("m", cpu_node, engine(startupProbe=probe(failureThreshold=30), readinessProbe=probe()))
    await cluster.create(
        "deployments",
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "m"},
            "spec": {
                "selector": {"matchLabels": {"app": "m"}},
                "template": {"metadata": {"labels": {"app": "m"}}, "spec": template["spec"]},
            },
        },
    )

    bound = await cluster.any_pod_reaches(lambda _: True)
    history = await cluster.pod_history(bound["metadata"]["name"], is_ready)

    loading = [seen for seen in history if "running" in engine_status(seen).get("state", {})]
    stages = [(engine_status(seen)["started"], engine_status(seen)["ready"]) for seen in loading]
    assert stages[0] == (False, False)
    assert stages == sorted(stages)
    assert history[-1]["status"]["phase"] == "Running"
    assert history[-1]["status"]["podIP"].startswith("127.")
    assert history[-1]["status"]["hostIP"] == nodes.nodes[cpu_node].address
    conditions = {c["type"]: c["status"] for c in history[-1]["status"]["conditions"]}
    assert conditions.pop("PodScheduled") == "True"
    assert conditions == dict.fromkeys(
        ["PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"], "True"
    )
    answer = await fetch(history[-1], "/v1/models")
    assert [model["id"] for model in answer["data"]] == [MODEL]


async def test_container_whose_readiness_probe_fails_is_started_and_not_ready(
    cluster: Cluster, cpu_node: str
) -> None:
    container = engine(startupProbe=probe(failureThreshold=30), readinessProbe=probe("/no-such-page"))
    await cluster.create("pods", pod("m", cpu_node, container))

    seen = await cluster.pod_reaches("m", lambda p: bool(engine_status(p).get("started")))

    assert engine_status(seen)["ready"] is False
    assert condition(seen, "Ready") == "False"


async def test_readiness_follows_the_probe_both_ways(cluster: Cluster, cpu_node: str) -> None:
    await cluster.create(
        "pods", pod("m", cpu_node, engine(readinessProbe=probe("/metrics", failureThreshold=1)))
    )
    seen = await cluster.pod_reaches("m", is_ready)

    await fetch(seen, "/standin/faults", {"metrics": "error"})
    seen = await cluster.pod_reaches("m", lambda p: not is_ready(p))
    assert engine_status(seen)["restartCount"] == 0
    await fetch(seen, "/standin/faults", {"metrics": "true"})
    await cluster.pod_reaches("m", is_ready)


async def test_llama_cpp_answers_a_chat(cluster: Cluster, cpu_node: str) -> None:
    container = engine(
        image=LLAMA_IMAGE,
        args=[
            *("--hf-repo", "ggml-org/gemma-3-270m-it-GGUF:Q4_K_M", "--alias", "gemma"),
            *("--host", "0.0.0.0", "--port", "8000", "--ctx-size", "2048", "--parallel", "2"),
            *("--metrics", "--jinja"),
        ],
        startupProbe=probe(failureThreshold=50),
        readinessProbe=probe(),
    )
    await cluster.create("pods", pod("gemma", cpu_node, container))

    seen = await cluster.pod_reaches("gemma", is_ready)

    question = {"role": "user", "content": "The capital of France is"}
    answer = await fetch(
        seen, "/v1/chat/completions", {"model": "gemma", "messages": [question], "max_tokens": 8}
    )
    assert answer["model"] == "gemma"
    assert answer["choices"][0]["message"]["content"].strip()
    assert 0 < answer["usage"]["completion_tokens"] <= 8
    assert "llamacpp:prompt_tokens_total" in await fetch(seen, "/metrics")


async def test_environment_comes_from_secrets_config_maps_and_the_pod(
    cluster: Cluster, cpu_node: str
) -> None:
    token = base64.b64encode(b"s3cret").decode()
    await cluster.create("secrets", {"metadata": {"name": "hub"}, "data": {"token": token}})
    container = engine(
        args=["--model", "example/tiny", "--served-model-name", "$(NAME)-$(SUFFIX)", "--port", "8000"],
        env=[
            {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}},
            {"name": "SUFFIX", "valueFrom": {"configMapKeyRef": {"name": "names", "key": "suffix"}}},
            {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "CACHE", "value": "/cache/$(NAME)/$$(NAME)"},
            {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {
                "name": "ABSENT",
                "valueFrom": {"secretKeyRef": {"name": "none", "key": "none", "optional": True}},
            },
        ],
        resources={"limits": {"cpu": "1500m"}},
        volumeMounts=[{"name": "cache", "mountPath": "/cache"}],
        readinessProbe=probe(),
    )
    await cluster.create("pods", pod("m", cpu_node, container, volumes=[{"name": "cache", "emptyDir": {}}]))
    await cluster.pod_reaches("m", waits_for("CreateContainerConfigError"))
    await cluster.create("configmaps", {"metadata": {"name": "names"}, "data": {"suffix": "large"}})

    seen = await cluster.pod_reaches("m", is_ready)

    variables = environment_of(pid_of(seen))
    assert variables["HF_TOKEN"] == "s3cret"
    assert variables["POD_IP"] == seen["status"]["podIP"]
    assert variables["CPUS"] == "2"
    assert "ABSENT" not in variables
    assert variables["CACHE"].startswith(variables["HOME"])
    assert variables["CACHE"].endswith("/cache/m/$(NAME)")
    models = await fetch(seen, "/v1/models")
    assert [model["id"] for model in models["data"]] == ["m-large"]


async def test_no_two_pods_share_a_gpu(cluster: Cluster, nodes: LocalNodes, gpu_node: str) -> None:
    container = engine(resources={"limits": {"nvidia.com/gpu": "1"}}, readinessProbe=probe())
    for name in ("a", "b"):
        await cluster.create("pods", pod(name, gpu_node, container))
    ready = [await cluster.pod_reaches(name, is_ready) for name in ("a", "b")]
    held = [environment_of(pid_of(seen))["NVIDIA_VISIBLE_DEVICES"] for seen in ready]
    assert sorted(held) == sorted(nodes.nodes[gpu_node].gpus.ids)

    await cluster.create("pods", pod("c", gpu_node, container))
    await cluster.pod_reaches("c", lambda p: condition(p, "PodScheduled") == "False")
    await cluster.delete_pod("a")
    third = await cluster.pod_reaches("c", is_ready)

    assert environment_of(pid_of(third))["NVIDIA_VISIBLE_DEVICES"] == held[0]


async def test_unknown_image_cannot_be_pulled(cluster: Cluster, cpu_node: str) -> None:
    await cluster.create("pods", pod("m", cpu_node, engine(image="nginx:1.29")))
    seen = await cluster.pod_reaches("m", waits_for("ImagePullBackOff"))
    assert seen["status"]["phase"] == "Pending"
    await cluster.delete_and_follow("m")


async def test_init_container_runs_before_the_engine(cluster: Cluster, cpu_node: str) -> None:
    broken = engine(name="first", args=["--no-such-option"])
    manifest = pod("m", cpu_node, engine(), initContainers=[broken], restartPolicy="Never")
    await cluster.create("pods", manifest)

    seen = await cluster.pod_reaches("m", lambda p: p["status"]["phase"] == "Failed")

    first = seen["status"]["initContainerStatuses"][0]
    assert first["state"]["terminated"]["exitCode"] == 2
    assert "running" not in engine_status(seen)["state"]
    assert not engine_status(seen).get("containerID")


async def test_endpoint_slices_cannot_carry_the_pods(cluster: Cluster, cpu_node: str) -> None:
    """The API server refuses loopback addresses, so whoever routes must read the pods."""
    await cluster.create(
        "services", {"metadata": {"name": "m"}, "spec": {"selector": {"app": "m"}, "ports": [{"port": 8000}]}}
    )
    await cluster.create("pods", pod("m", cpu_node, engine(readinessProbe=probe())))
    await cluster.pod_reaches("m", is_ready)

    event = await cluster.event("FailedToUpdateEndpointSlices")

    assert "loopback" in event["message"]
    slices = await cluster.api.get(f"apis/discovery.k8s.io/v1/namespaces/{cluster.namespace}/endpointslices")
    assert [endpoint for each in slices["items"] for endpoint in each.get("endpoints") or []] == []
