"""What `modelyard plan` says beside its figures: the runner-up, notes, and models in folders."""

import json
from pathlib import Path
from typing import Any

import pytest

from modelyard.api.meta import API_VERSION
from tests.apiserver.manifests import PROFILE
from tests.unit.cli.planning import first, manifest, report, run, write

L4 = {"class": "l4", "count": 1, "requestsPerMinute": 60}
CONFIG = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "max_position_embeddings": 4096,
    "model_type": "llama",
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
    "vocab_size": 8000,
}


def priced(name: str, price: str, spot: str | None = None) -> dict[str, Any]:
    spec: dict[str, Any] = {"resourceName": "nvidia.com/gpu", "nodeSelector": {"kind": name}}
    spec["price"] = {"onDemand": price}
    if spot is not None:
        spec["price"]["spot"] = spot
        spec["spot"] = {"nodeSelector": {"capacity": "spot"}}
    return {
        "apiVersion": API_VERSION,
        "kind": "AcceleratorClass",
        "metadata": {"name": name},
        "spec": spec,
    }


def inventory(folder: Path, *nodes: dict[str, Any]) -> Path:
    document = {"apiVersion": "plan.modelyard.dev/v1alpha1", "kind": "Inventory", "nodes": list(nodes)}
    return write(folder, "inventory.yaml", json.dumps(document))


def plan(tmp_path: Path, item: dict[str, Any], *others: Any, options: tuple[object, ...] = ()) -> Any:
    return report(tmp_path, [item, *others], *options)["deployments"][0]


def test_a_missed_objective_is_seen_in_the_table_and_is_no_failure(tmp_path) -> None:
    slo = {"timeToFirstToken": "50ms", "interTokenLatency": "5ms"}
    item = manifest(
        classes=("l4", "h100"),
        source="hf://meta-llama/Llama-3.3-70B-Instruct",
        scaling={"min": 1, "max": 8, "slo": slo},
        load={"requestsPerMinute": 30},
    )
    found = first(tmp_path, item)
    (variant,) = found["variants"]
    assert (variant["class"], variant["count"], found["missesObjective"]) == ("h100", 8, True)
    assert "it is slower, and none meets the objective" in found["runnerUp"]["reason"]
    result = run(tmp_path, [item])
    assert result.exit_code == 0
    assert "fits, misses slo" in result.stdout.splitlines()[1]
    assert first(tmp_path, manifest())["missesObjective"] is False


def test_a_runner_up_has_no_more_replicas_than_allowed(tmp_path) -> None:
    classes = [{**L4, "requestsPerMinute": 600}, {**L4, "class": "slow"}, {**L4, "class": "dear"}]
    classes[2]["requestsPerMinute"] = 600
    others = (priced("slow", "0.01"), priced("dear", "9"), priced("l4", "1"))
    item = manifest(classes=classes, scaling={"max": 2}, load={"requestsPerMinute": 130})
    runner_up = plan(tmp_path, item, *others)["runnerUp"]
    assert (runner_up["variant"]["class"], runner_up["reason"]) == ("dear", "$8/h more for the same load")
    alone = manifest(classes=classes[:2], scaling={"max": 2}, load={"requestsPerMinute": 130})
    assert "runnerUp" not in plan(tmp_path, alone, *others)


def test_a_runner_up_has_the_smallest_size_at_least(tmp_path) -> None:
    classes = [L4, {**L4, "class": "strong", "requestsPerMinute": 6000}]
    item = manifest(classes=classes, scaling={"min": 3, "max": 9}, load={"requestsPerMinute": 60})
    runner_up = plan(tmp_path, item, priced("l4", "1"), priced("strong", "2"))["runnerUp"]
    assert (runner_up["variant"]["replicas"], runner_up["reason"]) == (3, "$3/h more for the same load")


def test_the_order_in_the_spec_decides_only_where_it_has_one(tmp_path) -> None:
    twins = (priced("one", "1"), priced("two", "1"))
    both = manifest(classes=[{**L4, "class": "one"}, {**L4, "class": "two"}], scaling={"max": 3})
    assert plan(tmp_path, both, *twins)["runnerUp"]["reason"].endswith("the order in the spec decides")
    neither = plan(tmp_path, manifest(classes=(), scaling={"max": 3}), *twins)
    assert neither["runnerUp"]["reason"] == "the same price for the same load"


def spot_manifest(base: int, rate: int = 120) -> dict[str, Any]:
    placement = {"accelerators": [L4], "spot": {"onDemandBase": base}}
    return manifest(placement=placement, scaling={"max": 9}, load={"requestsPerMinute": rate})


def test_spot_that_is_left_out_without_an_inventory_is_told(tmp_path) -> None:
    l4 = priced("l4", "1", "0.3")
    found = plan(tmp_path, spot_manifest(1), l4)
    assert [row["purchase"] for row in found["variants"]] == ["OnDemand"]
    assert any("spot is left out: without an inventory" in note for note in found["notes"])
    assert "the spot replicas of one zone may be lost at once" in found["runnerUp"]["reason"]
    based = plan(tmp_path, spot_manifest(1, rate=6), l4)
    assert "placement.spot.onDemandBase keeps 1 on demand" in based["runnerUp"]["reason"]


def test_spot_over_zones_says_why_it_is_more_than_the_load_needs(tmp_path) -> None:
    l4 = priced("l4", "1", "0.3")
    zones = [{"class": "l4", "count": 4, "accelerators": 1, "spot": True, "zone": zone} for zone in "abc"]
    found = plan(tmp_path, spot_manifest(0), l4, options=("--against", inventory(tmp_path, *zones)))
    assert [row["purchase"] for row in found["variants"]] == ["Spot"]
    assert not any("spot is left out" in note for note in found["notes"])
    assert "the spot replicas of one zone may be lost at once" in found["size"]["message"]
    nodes = [{"class": "l4", "count": 9, "accelerators": 1}, {**zones[0], "count": 9}]
    one = plan(tmp_path, spot_manifest(0), l4, options=("--against", inventory(tmp_path, *nodes)))
    assert [row["purchase"] for row in one["variants"]] == ["OnDemand"]
    assert "its nodes lack room in enough zones" in one["runnerUp"]["reason"]


def test_room_and_moving_are_no_reasons_without_an_inventory(tmp_path) -> None:
    fleet = [manifest(f"d{index}", classes=(), scaling={"max": 9}) for index in range(3)]
    reasons = [item["runnerUp"]["reason"] for item in report(tmp_path, fleet)["deployments"]]
    assert not any("no room" in reason or "moving" in reason for reason in reasons)


def test_a_tiny_capacity_is_not_printed_as_zero(tmp_path) -> None:
    item = manifest(
        classes=("l4",),
        source="hf://meta-llama/Llama-3.1-8B-Instruct",
        scaling={"max": 1},
        load={"requestsPerMinute": 1, "inputTokens": 100, "outputTokens": 50_000},
        model={"contextLength": 131072},
        engine={"name": "vLLM", "parameters": {"kv-cache-dtype": "fp8"}},
    )
    classes = [{**priced("l4", "1"), "spec": {"resourceName": "nvidia.com/gpu", "memory": "80Gi"}}]
    classes[0]["spec"] |= {"memoryBandwidth": 1, "throughput": {"bf16": 1}, "price": {"onDemand": "1"}}
    found = plan(tmp_path, item, *classes)
    assert found["variants"][0]["requestsPerMinute"] > 0
    assert ": 0 requests a minute" not in found["reason"]
    assert not any("answer 0 of" in note for note in found["notes"])


def test_a_count_that_no_node_has_is_told(tmp_path) -> None:
    item = manifest(classes=[{"class": "h100", "count": 16}], replicas=1)
    nodes = inventory(tmp_path, {"class": "h100", "count": 2, "accelerators": 8})
    result = run(tmp_path, [item], "--against", nodes, "-o", "json")
    (found,) = json.loads(result.stdout)["deployments"]
    assert result.exit_code == 3
    assert any(
        "1 replica has no room and stays Pending: no node of class h100 has 16 accelerators, the largest has 8"
        in note
        for note in found["notes"]
    )


def test_a_field_of_the_profile_that_is_dropped_is_a_note_of_its_deployment(tmp_path) -> None:
    item = manifest("a", source="pvc://weights", model={"profile": {**PROFILE, "hiddenSizes": 1}})
    found = report(tmp_path, [item, manifest("b")])["deployments"]
    assert any("spec.model.profile.hiddenSizes" in note for note in found[0]["notes"])
    assert not any("hiddenSizes" in note for note in found[1]["notes"])


@pytest.mark.parametrize("classes", [("mi300x",), ("l4", "mi300x")])
def test_amd_accelerators_are_refused_with_the_reason(tmp_path, classes: tuple[str, ...]) -> None:
    found = first(tmp_path, manifest(classes=classes))
    assert any("Modelyard has no ROCm image" in note for note in found["notes"])


def model_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    write(folder, "config.json", json.dumps(CONFIG))
    return folder


def test_a_model_is_read_from_a_folder(tmp_path) -> None:
    item = manifest(source="pvc://weights/tune")
    assert first(tmp_path, item)["fit"]["verdict"] == "Unknown"
    found = first(tmp_path, item, "--model-folder", f"pvc://weights/tune={model_folder(tmp_path)}")
    assert (found["fit"]["verdict"], found["fit"]["memory"]["contextLength"]) == ("Fits", 4096)


def test_a_folder_of_no_use_is_noted(tmp_path) -> None:
    found = report(tmp_path, [manifest()], "--model-folder", f"hf://other/model={model_folder(tmp_path)}")
    assert any(
        "--model-folder: the folder of hf://other/model is not used" in note for note in found["notes"]
    )


def test_a_bad_folder_is_named(tmp_path) -> None:
    for value in ("nothing", "=.", f"hf://a/b={tmp_path / 'none'}"):
        result = run(tmp_path, [manifest()], "--model-folder", value)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "--model-folder" in result.stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    result = run(tmp_path, [manifest()], "--model-folder", f"hf://a/b={empty}")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--model-folder hf://a/b: the model has no config.json" in result.stderr
