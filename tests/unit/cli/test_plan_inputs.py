"""What `modelyard plan` reads beside manifests: recorded loads, own prices, inventories."""

import json
import math

import pytest

from modelyard.api.meta import API_VERSION
from modelyard.core.report.steady import find_capacity
from modelyard.core.scaling.rule import LoadPolicy
from tests.unit.cli.planning import first, manifest, report, run, write


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("load.csv", "deployment,requestsPerMinute,inputTokens,outputTokens\nteam/a,600,1000,200\n"),
        ("load.yaml", "- {deployment: a, requestsPerMinute: 600, inputTokens: 1000, outputTokens: 200}\n"),
        (
            "load.json",
            '[{"deployment": "team/a", "requestsPerMinute": 600, "inputTokens": 1000, "outputTokens": 200}]',
        ),
    ],
)
def test_a_recorded_load_goes_before_the_stated_one(tmp_path, name: str, text: str) -> None:
    option = {"class": "l4", "count": 1, "requestsPerMinute": 180}
    item = manifest(classes=[option], scaling={"max": 9}, load={"requestsPerMinute": 1})
    found = first(tmp_path, item, "--load", write(tmp_path, name, text), "-n", "team")
    assert found["load"] == {
        "source": "File",
        "requestsPerMinute": 600.0,
        "inputTokens": 1000.0,
        "outputTokens": 200.0,
    }
    assert found["replicas"] == math.ceil(find_capacity(10.0, None, LoadPolicy()) / 3.0)


def test_recorded_tokens_change_what_a_replica_answers(tmp_path) -> None:
    rows = "- {deployment: team/a, requestsPerMinute: 60, inputTokens: %d, outputTokens: 50}"
    each = [
        first(tmp_path, manifest(scaling={"max": 9}), "--load", write(tmp_path, "load.yaml", rows % tokens))
        for tokens in (200, 8000)
    ]
    rates = [found["variants"][0]["requestsPerMinute"] for found in each]
    assert rates[0] > 2 * rates[1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- {deployment: a}", "row 1: requestsPerMinute"),
        ("- {deployment: a, requestsPerMinute: -1}", "row 1: requestsPerMinute"),
        ("- {deployment: a, requestsPerMinute: .nan}", "row 1: requestsPerMinute"),
        ("- {deployment: a, requestsPerMinute: 1, tokens: 4}", "row 1: tokens"),
        (
            "- {deployment: a, requestsPerMinute: 1}\n- {deployment: default/a, requestsPerMinute: 2}",
            "two rows",
        ),
        ("a: 1", "a list of rows"),
        ("- 1", "a mapping"),
    ],
)
def test_a_bad_load_names_file_row_and_column(tmp_path, text: str, said: str) -> None:
    path = write(tmp_path, "load.yaml", text)
    result = run(tmp_path, [manifest()], "--load", path)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "load.yaml" in result.stderr


def test_a_row_of_no_deployment_is_noted(tmp_path) -> None:
    path = write(tmp_path, "load.csv", "deployment,requestsPerMinute\nnobody,1\n")
    result = run(tmp_path, [manifest()], "--load", path)
    assert "default/nobody is no deployment here" in result.stderr


def test_own_prices_are_compared_too(tmp_path) -> None:
    row = "- {provider: Ours, model: m, inputPerMillion: '%s', outputPerMillion: '%s', source: contract, "
    row += "date: 2026-01-01%s}\n"
    text = row % ("1", "2", "") + row % ("3", "4", ", deployment: team/b")
    path = write(tmp_path, "prices.yaml", text)
    found = report(tmp_path, [manifest("a"), manifest("b")], "--prices", path)["deployments"]
    own = [
        [item["inputPerMillion"] for item in each["comparisons"] if item["kind"] == "Own"] for each in found
    ]
    assert own == [["1"], ["1", "3"]]


INVENTORY = """
apiVersion: plan.modelyard.dev/v1alpha1
kind: Inventory
nodes: [{class: l4, count: %d, accelerators: 1}]
"""


@pytest.mark.parametrize(("nodes", "missing", "code"), [(3, 0, 0), (1, 2, 3)])
def test_replicas_without_room_are_counted(tmp_path, nodes: int, missing: int, code: int) -> None:
    path = write(tmp_path, "inventory.txt", INVENTORY % nodes)
    result = run(
        tmp_path,
        [manifest(classes=[{"class": "l4", "count": 1}], replicas=3)],
        "-o",
        "json",
        "--against",
        path,
    )
    found = json.loads(result.stdout)
    assert (result.exit_code, found["deployments"][0]["missingReplicas"]) == (code, missing)


def test_nodes_that_can_be_had_count_as_room(tmp_path) -> None:
    own = {"apiVersion": API_VERSION, "kind": "AcceleratorClass", "metadata": {"name": "l4"}}
    own["spec"] = {
        "resourceName": "nvidia.com/gpu",
        "nodeSelector": {"gpu": "l4"},
        "memory": "24Gi",
        "available": 3,
        "perNode": 1,
    }
    path = write(tmp_path, "inventory.txt", INVENTORY % 1)
    item = manifest(classes=[{"class": "l4", "count": 1}], replicas=3)
    assert report(tmp_path, [item, own], "--against", path)["deployments"][0]["missingReplicas"] == 0


def test_a_replica_needs_its_accelerators_on_one_node(tmp_path) -> None:
    path = write(tmp_path, "inventory.txt", INVENTORY % 8)
    item = manifest(classes=[{"class": "l4", "count": 2}], replicas=1)
    assert report(tmp_path, [item], "--against", path)["deployments"][0]["missingReplicas"] == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: Inventory", "apiVersion"),
        ("apiVersion: plan.modelyard.dev/v1alpha1\nkind: Inventory\nnodez: []", "nodez"),
        ((INVENTORY % 1).replace("class: l4", "class: mystery"), "mystery is defined nowhere"),
        (
            INVENTORY % 1 + "running: [{deployment: a, class: mystery, replicas: 1}]",
            "mystery is defined nowhere",
        ),
        ((INVENTORY % 1).replace("accelerators: 1", "accelerators: 1, spot: true, labels: {a: 1}"), "labels"),
        (INVENTORY % 1 + "---" + INVENTORY % 1, "more than one document"),
        ("", "no document"),
    ],
)
def test_a_bad_inventory_names_file_and_field(tmp_path, text: str, said: str) -> None:
    path = write(tmp_path, "inventory.txt", text)
    result = run(tmp_path, [manifest()], "--against", path)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "inventory.txt" in result.stderr


def test_spot_nodes_carry_the_replicas_above_the_base(tmp_path) -> None:
    text = INVENTORY % 1 + "  # more\n"
    text = text.replace("}]", "}, {class: l4, count: 4, accelerators: 1, spot: true}]")
    path = write(tmp_path, "inventory.txt", text)
    option = {"class": "l4", "count": 1, "requestsPerMinute": 60}
    item = manifest(classes=[option], scaling={"max": 9}, load={"requestsPerMinute": 140})
    item["spec"]["placement"]["spot"] = {"onDemandBase": 1}
    found = report(tmp_path, [item], "--against", path)["deployments"][0]
    needed = math.ceil(find_capacity(140 / 60, None, LoadPolicy()))
    assert sorted((row["purchase"], row["replicas"]) for row in found["variants"]) == [
        ("OnDemand", 1),
        ("Spot", needed - 1),
    ]
    assert found["missingReplicas"] == 0
