"""examples/ and the demo's numbers agree, and every example is a valid manifest."""

import re
from typing import Any

from dev.cluster.node_classes import node_manifests, parse_node_counts
from dev.demo.cluster import NODE_COUNT
from dev.demo.kube import load_manifests
from dev.demo.run import MINIMUM_REPLICAS
from dev.demo.settings import (
    CHAT_MODEL,
    EXAMPLES,
    EXPECTED_PEAK,
    NODES,
    REPLICA_RATE,
    REPOSITORY,
    TRAFFIC_MODEL,
)
from modelyard.api.validation import validate

FOLDER = REPOSITORY / "examples"
INVENTORY = FOLDER / "inventory.yaml"
"""Is for `modelyard plan`, and no manifest for a cluster."""
MANIFESTS = load_manifests(EXAMPLES)


def named(kind: str, name: str) -> Any:
    return next(item for item in MANIFESTS if (item["kind"], item["metadata"]["name"]) == (kind, name))


def test_every_example_is_valid_without_a_warning() -> None:
    manifests = load_manifests(sorted(set(FOLDER.glob("*.yaml")) - {INVENTORY}))
    assert {manifest["kind"] for manifest in manifests} == {"AcceleratorClass", "LLMDeployment", "LLMRoute"}
    assert {manifest["metadata"]["name"]: list(validate(manifest)) for manifest in manifests} == {
        manifest["metadata"]["name"]: [] for manifest in manifests
    }


def test_the_demo_applies_what_the_page_of_the_examples_says() -> None:
    rows = re.findall(r"^\| `([\w.-]+\.yaml)` \| (.*) \|$", (FOLDER / "README.md").read_text(), re.MULTILINE)
    left_out = {name for name, text in rows if text.endswith(("not applied by the demo", "never applied"))}
    assert {name for name, _ in rows} == {path.name for path in FOLDER.glob("*.yaml")}
    assert {path.name for path in EXAMPLES} == {name for name, _ in rows} - left_out


def test_the_traffic_model_is_sized_as_the_demo_says() -> None:
    spec = named("LLMDeployment", "llama-3-1-8b")["spec"]
    assert spec["model"]["name"] == TRAFFIC_MODEL
    assert spec["scaling"] == {"min": MINIMUM_REPLICAS, "max": EXPECTED_PEAK.stop - 1}
    (option,) = spec["placement"]["accelerators"]
    assert option["requestsPerMinute"] == 60 * REPLICA_RATE


def test_the_chat_model_may_sleep() -> None:
    assert named("LLMDeployment", CHAT_MODEL)["spec"]["scaling"]["min"] == 0


def test_the_nodes_have_room_for_every_replica() -> None:
    nodes = node_manifests(parse_node_counts(NODES))
    assert len(nodes) == NODE_COUNT
    for name, needed in (("l4", EXPECTED_PEAK.stop - 1), ("h100", 2)):
        selector = named("AcceleratorClass", name)["spec"]["nodeSelector"]
        matching = [node for node in nodes if selector.items() <= node["metadata"]["labels"].items()]
        assert sum(int(node["status"]["allocatable"]["nvidia.com/gpu"]) for node in matching) >= needed


def test_the_route_names_deployments_that_exist() -> None:
    for target in named("LLMRoute", "assistant")["spec"]["targets"]:
        assert named("LLMDeployment", target["deployment"])
