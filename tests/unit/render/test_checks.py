"""Specs that the schema accepts and that cannot run: each is refused with a reason and a remedy."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.meta import Refusal, wire
from modelyard.catalog.engines import (
    EngineVersion,
    Image,
    ImageSettings,
    accelerator_kind,
    load_engines,
    resolve_image,
)
from modelyard.render.children import build_children, build_policy, check_workload
from modelyard.render.engines import ENGINES
from modelyard.render.resources import multiply_quantity
from modelyard.render.sources import ClaimSource, HubSource, parse_source
from modelyard.render.workload import Parent, Workload
from tests.golden.cases import INPUTS, SETTINGS, read_workload


def _change(name: str, **changes: Any) -> Workload:
    """Return a golden case with fields of its spec replaced, `model__source` for `model.source`."""
    workload = read_workload(name)
    manifest = wire(workload.deployment)
    for path, value in changes.items():
        *parents, last = path.split("__")
        target = manifest["spec"]
        for parent in parents:
            target = target[parent]
        target[last] = value
    return replace(workload, deployment=LLMDeployment.model_validate(manifest))


@pytest.mark.parametrize("name", INPUTS)
def test_golden_cases_are_not_refused(name: str) -> None:
    assert check_workload(read_workload(name), SETTINGS) is None


@pytest.mark.parametrize(
    ("changes", "deprecated"),
    [
        ({"model__source": "hf://meta-llama/Llama-3.1-405B-Instruct-FP8"}, True),
        ({"model__quantization": "fbgemm_fp8"}, True),
        ({"model__source": "hf://meta-llama/Llama-3.1-405B-Instruct"}, False),
        ({"model__quantization": "fp8"}, False),
    ],
)
def test_a_format_that_vllm_deprecates_is_allowed(changes: dict[str, Any], deprecated: bool) -> None:
    """Without the flag vLLM 0.32 refuses to start with the publisher's own FP8 files of Llama 3.1 405B."""
    arguments = ENGINES["vLLM"].build_arguments(_change("vllm-one-l4", **changes))
    assert ("--allow-deprecated-quantization" in arguments) is deprecated


@pytest.mark.parametrize(
    ("workload", "reason", "words"),
    [
        (_change("vllm-one-l4", engine__version="0.1"), "UnknownEngineVersion", "choose from 0.32.0"),
        (_change("vllm-one-l4", model__source="hf://a/b:Q4_K_M"), "UnsupportedSource", "only LlamaCpp"),
        (
            _change("vllm-adapter-from-hub", model__adapters=[{"name": "x", "source": "hf://a/b@v1"}]),
            "UnsupportedSource",
            "adapter 'x'",
        ),
        (
            _change("vllm-one-l4", engine__parameters={"enforce-eager": "yes"}),
            "InvalidParameter",
            "true or false",
        ),
        (
            _change("vllm-one-l4", engine__parameters={"enable-auto-tool-choice": "true"}),
            "InvalidParameter",
            "tool-call-parser",
        ),
        (
            _change("vllm-one-l4", engine__parameters={"max-num-seqs": ""}),
            "InvalidParameter",
            "give it a value",
        ),
        (
            _change("vllm-one-l4", engine__parameters={"trust-remote-code": ""}),
            "InvalidParameter",
            "no parameter",
        ),
        (
            _change("vllm-one-l4", placement__nodeSelector={"nvidia.com/gpu.product": "NVIDIA-A10"}),
            "PlacementConflict",
            "class l4 has nvidia.com/gpu.product=NVIDIA-L4",
        ),
        (_change("llamacpp-cpu", engine={"name": "vLLM"}), "NoEngineImage", "only for cuda"),
        (_change("llamacpp-cpu", model__source="hf://a/b@main"), "UnsupportedSource", "revision 'main'"),
        (_change("llamacpp-cpu", model__source="pvc://models/folder"), "UnsupportedSource", ".gguf"),
        (_change("llamacpp-cpu", model__quantization="Q8_0"), "UnsupportedSource", "contradicts"),
        (_change("llamacpp-cpu", engine__parameters={"parallel": "0"}), "InvalidParameter", "at least 1"),
        (_change("llamacpp-cpu", engine__parameters={"parallel": "²"}), "InvalidParameter", "at least 1"),
    ],
)
def test_refusals(workload: Workload, reason: str, words: str) -> None:
    refusal = check_workload(workload, SETTINGS)
    assert refusal is not None
    assert refusal.reason == reason
    assert words in refusal.message
    with pytest.raises(ValueError, match=workload.name):
        build_children([workload], SETTINGS)


def test_every_engine_has_an_adapter_and_images() -> None:
    assert ENGINES.keys() == load_engines().keys()
    assert all(version.images for versions in load_engines().values() for version in versions)


def test_images_follow_accelerator_mirror_and_digest() -> None:
    settings = ImageSettings(
        mirrors={"ghcr.io": "registry.example/ghcr", "docker.io": "registry.example:5000/hub/"},
        digests={"ghcr.io/ggml-org/llama.cpp:server-b11151": "sha256:abc"},
    )
    cpu = resolve_image("LlamaCpp", None, accelerator_kind(None), settings)
    assert cpu == Image("registry.example/ghcr/ggml-org/llama.cpp:server-b11151@sha256:abc", "b11151")
    gpu = resolve_image("LlamaCpp", "b11151", accelerator_kind("nvidia.com/mig-1g.10gb"), settings)
    assert gpu == Image("registry.example/ghcr/ggml-org/llama.cpp:server-cuda12-b11151", "b11151")
    vllm = resolve_image("vLLM", None, "cuda", settings)
    assert vllm == Image("registry.example:5000/hub/vllm/vllm-openai:v0.32.0", "0.32.0")


def test_configured_versions_replace_the_catalogue() -> None:
    own = ImageSettings(versions={"vLLM": (EngineVersion("1.0-ours", {"cuda": "localhost/vllm:1"}),)})
    assert resolve_image("vLLM", None, "cuda", own) == Image("localhost/vllm:1", "1.0-ours")
    assert isinstance(resolve_image("vLLM", "0.32.0", "cuda", own), Refusal)


@pytest.mark.parametrize(
    ("source", "parsed"),
    [
        ("hf://a/b", HubSource("a/b")),
        ("hf://a/b:Q4_K_M@main", HubSource("a/b", "Q4_K_M", "main")),
        ("pvc://claim", ClaimSource("claim")),
        ("pvc://claim/x/y.gguf", ClaimSource("claim", "x/y.gguf")),
    ],
)
def test_sources(source: str, parsed: HubSource | ClaimSource) -> None:
    assert parse_source(source) == parsed


@pytest.mark.parametrize(
    ("text", "factor", "product"),
    [
        ("16Gi", 4, "64Gi"),
        ("1024Mi", 1, "1Gi"),
        ("1.5Gi", 1, "1536Mi"),
        ("0.5Ki", 1, "512"),
        ("512Gi", 2, "1Ti"),
        ("0.5", 1, "500m"),
        ("1500m", 2, "3"),
        ("7.5", 4, "30"),
        ("1000", 1, "1k"),
        ("0.0001", 1, "1m"),
        ("0.1Mi", 1, "104857600m"),
        ("2000M", 1, "2G"),
        ("0", 3, "0"),
    ],
)
def test_quantities_are_canonical(text: str, factor: int, product: str) -> None:
    assert multiply_quantity(text, factor) == product


def test_llama_server_shares_the_context_of_a_model_without_a_limit() -> None:
    limited = read_workload("llamacpp-cpu")
    workload = _change("llamacpp-cpu", model__contextLength=None)
    assert "--kv-unified" not in ENGINES["LlamaCpp"].build_arguments(limited)
    arguments = ENGINES["LlamaCpp"].build_arguments(workload)
    assert "--kv-unified" in arguments
    assert "--ctx-size" not in arguments


def test_a_parameter_cannot_read_the_token() -> None:
    workload = _change("vllm-one-l4", engine__parameters={"dtype": "$(HF_TOKEN)"})
    container = build_children([workload], SETTINGS)[-1]["spec"]["template"]["spec"]["containers"][0]
    # The kubelet writes `$$` as `$`, and leaves what follows alone.
    assert container["args"][-1] == "--dtype=$$(HF_TOKEN)"


def test_the_network_of_a_hub_mirror_can_be_opened() -> None:
    settings = replace(SETTINGS, closed_networks=(), closed_networks_v6=())
    policy = build_children([read_workload("vllm-one-l4")], settings)[1]["spec"]
    assert policy["egress"][-1]["to"] == [{"ipBlock": {"cidr": "0.0.0.0/0"}}, {"ipBlock": {"cidr": "::/0"}}]


def test_examples_render() -> None:
    folder = Path(__file__).parents[3] / "examples"
    documents = [
        item for path in folder.glob("*.yaml") for item in yaml.safe_load_all(path.read_text("utf-8"))
    ]
    classes = {
        item["metadata"]["name"]: AcceleratorClass.model_validate(item)
        for item in documents
        if item["kind"] == "AcceleratorClass"
    }
    deployments = [
        LLMDeployment.model_validate(item) for item in documents if item["kind"] == "LLMDeployment"
    ]
    assert deployments
    for deployment in deployments:
        for option in deployment.spec.placement.accelerators:
            workload = Workload(
                deployment,
                classes[option.class_name],
                (option.count or 1) * option.nodes,
                replicas=1,
                pipeline=option.nodes,
                nodes=option.nodes,
            )
            assert check_workload(workload, SETTINGS) is None


REMOTE = [name for name in INPUTS if read_workload(name).is_remote]


@pytest.mark.parametrize("name", INPUTS)
def test_pods_behind_a_sovereign_route_reach_nothing(name: str) -> None:
    """Whatever their source is, and with no accelerator at hand: also what cannot be placed any more is closed."""
    workload = read_workload(name)
    free = build_policy(Parent(workload.deployment), SETTINGS)
    closed = build_policy(Parent(workload.deployment, sovereign=True), SETTINGS)
    assert "Egress" in closed["spec"]["policyTypes"]
    peers = [peer for rule in closed["spec"].get("egress", ()) for peer in rule["to"]]
    if not workload.has_groups:
        assert "egress" not in closed["spec"]
        assert ("egress" in free["spec"]) is (name in REMOTE)
    else:
        # A group's pods reach each other, and the resolver of the cluster for the leader's address.
        resolver = {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}
        assert [peer.get("namespaceSelector") for peer in peers] == [None, resolver]
        assert all("ipBlock" not in peer and peer["podSelector"]["matchLabels"] for peer in peers)
        own = [rule for rule in free["spec"]["egress"] if rule not in closed["spec"]["egress"]]
        assert bool(own) is (name in REMOTE)
    assert closed["spec"]["ingress"] == free["spec"]["ingress"]


@pytest.mark.parametrize("name", INPUTS)
def test_new_pods_behind_a_sovereign_route_need_their_model_inside(name: str) -> None:
    """The way out is closed, so a pod with a remote source would hold its GPU for nothing."""
    refusal = check_workload(replace(read_workload(name), sovereign=True), SETTINGS)
    assert (refusal is not None) is (name in REMOTE)
    if refusal is not None:
        assert refusal.reason == "SourceOutside"
        assert "hf://" in refusal.message
        assert "set source to pvc://" in refusal.message
