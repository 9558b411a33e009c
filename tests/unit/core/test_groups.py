"""Replicas that span nodes: counted, placed, priced and served as one, and refused where the cluster lacks the kind."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from modelyard.api.meta import Refusal
from modelyard.catalog.models import load_models
from modelyard.core.allocation import list_offers
from modelyard.core.choice import list_variants
from modelyard.core.decide import decide
from modelyard.core.groups import CRD, GroupSupport, explain_groups, fold_groups, refuse_groups
from modelyard.core.inventory import Usage, build_groups, build_inventory, count_places
from modelyard.core.ledger.holdings import find_holdings
from modelyard.core.load import LoadShape
from modelyard.core.memory import Parallelism
from modelyard.core.names import serving_endpoints
from modelyard.core.perf.prior import prior
from modelyard.core.place import measure_room
from modelyard.core.reasons import Code, Reason
from modelyard.core.report.running import find_running
from modelyard.core.snapshot import GATED, ChildDeployment, Pod
from modelyard.core.state import Memory, Policy
from modelyard.core.status import build_status
from modelyard.core.variants import Variant, VariantList, variant_name
from tests.unit.core.build import KEY, NOW, make_accelerator, make_deployment, make_node, make_snapshot
from tests.unit.core.test_choice import POLICY, offer
from tests.unit.core.test_fit import hardware

LARGE = {"source": "hf://meta-llama/Llama-3.1-405B-Instruct", "contextLength": 8192}
NAME = variant_name("h100", 16, spot=False, nodes=2)


def member(number: int, **changes: Any) -> Pod:
    """A pod of a group of two nodes with eight GPUs each, that runs and is ready."""
    fields: dict[str, Any] = {
        "name": f"llama-{NAME}-0" + (f"-{number}" if number else ""),
        "uid": f"uid-{number}",
        "deployment": KEY,
        "address": f"10.0.0.{number + 1}",
        "port": 0 if number else 8000,
        "accelerator": "h100",
        "variant": NAME,
        "node": f"node-{number}",
        "accelerators": {"nvidia.com/gpu": 8},
        "created": NOW - 600,
        "ready_since": NOW - 60,
        "phase": "Running",
        "scheduled": True,
        "ready": True,
        "group": f"llama-{NAME}/0",
        "member": number,
        "nodes": 2,
    }
    return Pod(**fields | changes)


def spanning(nodes: int = 2, **spec: Any) -> Any:
    """A deployment of the largest Llama on eight GPUs of each of so many nodes."""
    placement = {"accelerators": [{"class": "h100", "count": 8, "nodes": nodes}]}
    return make_deployment(model=LARGE, placement=placement, **spec)


def variants(deployment: Any, **changes: Any) -> VariantList | Refusal:
    snapshot = replace(offer(deployment, {}, names=("h100",)), **changes)
    return list_variants(deployment, snapshot, LoadShape(), POLICY)


def only(deployment: Any, **changes: Any) -> Variant:
    found = variants(deployment, **changes)
    assert isinstance(found, VariantList), found
    (variant,) = found.variants
    return variant


def test_a_group_is_one_replica_and_its_leader_the_endpoint() -> None:
    alone = Pod("alone", "a", KEY, address="10.0.1.1", port=8000, phase="Running", scheduled=True, ready=True)
    replicas = fold_groups([member(1), alone, member(0)])
    assert [pod.name for pod in replicas] == ["alone", f"llama-{NAME}-0"]
    leader = replicas[1]
    assert (leader.uid, leader.address, leader.serving, leader.live) == ("uid-0", "10.0.0.1", True, True)
    assert leader.accelerators == {"nvidia.com/gpu": 16}
    assert [endpoint.address for endpoint in serving_endpoints(replicas)] == ["10.0.0.1", "10.0.1.1"]


@pytest.mark.parametrize(
    "workers",
    [
        [],
        [member(1, terminating=True)],
        [member(1, phase="Pending", ready=False)],
        [member(1, phase="Failed", ready=False)],
        [member(-1)],
    ],
    ids=["missing", "leaving", "pending", "failed", "unknown number and nobody else"],
)
def test_a_leader_serves_only_while_its_group_is_whole(workers: list[Pod]) -> None:
    (folded,) = fold_groups([member(0), *workers])
    whole = len(workers) == 1 and workers[0].member == -1
    assert folded.serving is whole
    assert (folded.ready_since is not None) is whole


def test_a_group_whose_leader_is_gone_is_none() -> None:
    assert fold_groups([member(1), member(2)]) == ()


def test_of_two_leaders_of_a_name_the_one_that_stays_counts() -> None:
    old = member(0, uid="old", terminating=True)
    (folded,) = fold_groups([old, member(0, uid="new", created=NOW), member(1)])
    assert folded.uid == "new"


def test_a_group_waits_for_what_any_of_its_pods_waits_for() -> None:
    waiting = member(
        1,
        phase="Pending",
        scheduled=False,
        ready=False,
        waiting="Unschedulable",
        message="0/9 nodes",
        restarts=2,
    )
    (folded,) = fold_groups([member(0, ready=False), waiting])
    assert (folded.waiting, folded.scheduled, folded.phase, folded.restarts) == (
        "Unschedulable",
        False,
        "Pending",
        2,
    )
    assert waiting.name in folded.message
    assert folded.share_held == 0.5
    (gated,) = fold_groups([member(0, waiting=GATED), member(1, waiting=GATED)])
    assert gated.gated


def test_the_largest_model_fits_on_two_nodes_and_the_name_says_so() -> None:
    variant = only(spanning())
    assert (variant.count, variant.per_node, variant.nodes) == (16, 8, 2)
    assert (variant.label, variant.name) == ("8 x h100 x 2 nodes", NAME)
    assert (variant.parallelism.tensor, variant.parallelism.pipeline) == (8, 2)
    assert variant.hardware is not None
    assert variant.price == (variant.hardware.on_demand or Decimal(0)) * 16
    refused = variants(spanning(1))
    assert isinstance(refused, Refusal)
    assert "set placement.accelerators[].nodes to 2 and count to 8" in refused.message


def test_names_of_replicas_on_one_node_are_those_of_before() -> None:
    assert variant_name("h100", 16, spot=False, nodes=1) == variant_name("h100", 16, spot=False)
    assert len({variant_name("h100", 16, spot=False, nodes=count) for count in (1, 2, 4)}) == 3


def test_groups_are_never_spot() -> None:
    spot = {"spot": {"nodeSelector": {"type": "spot"}}, "price": {"onDemand": "4", "spot": "1"}}
    deployment = make_deployment(
        model=LARGE,
        placement={"accelerators": [{"class": "h100", "count": 8, "nodes": 2}], "spot": {"onDemandBase": 0}},
    )
    found = list_variants(deployment, offer(deployment, spot, names=("h100",)), LoadShape(), POLICY)
    assert isinstance(found, VariantList)
    assert [variant.spot for variant in found.variants] == [False]


def test_a_class_without_accelerators_has_no_groups() -> None:
    deployment = make_deployment(placement={"accelerators": [{"class": "h100", "nodes": 2}]})
    found = list_variants(
        deployment, offer(deployment, {"resourceName": None}, names=("h100",)), LoadShape(), POLICY
    )
    assert isinstance(found, Refusal)
    assert found.reason == Code.PLACEMENT_CONFLICT


def test_several_nodes_are_thought_slower_than_one_with_as_many_accelerators() -> None:
    (profile,) = [model.profile for model in load_models() if model.name == "Llama-3.1-70B"]
    speeds = {}
    for tensor, pipeline, nodes in ((4, 2, 1), (4, 2, 2), (4, 4, 4)):
        speeds[nodes] = prior(
            profile, None, hardware("H100-SXM"), Parallelism(tensor, pipeline, nodes), None, "vLLM"
        )
    shape = LoadShape()
    one, two, four = (speeds[nodes] for nodes in (1, 2, 4))
    assert one is not None
    assert two is not None
    assert four is not None
    for batch in (1, 32, 256):
        assert two.inter_token_latency(shape, batch) > one.inter_token_latency(shape, batch)
        assert two.time_to_first_token(shape, batch) > one.time_to_first_token(shape, batch)
        assert four.inter_token_latency(shape, batch) > two.inter_token_latency(shape, batch)


def test_a_missing_kind_refuses_groups_and_leaves_other_classes() -> None:
    missing = refuse_groups(GroupSupport(served=False), "team")
    assert missing is not None
    assert missing.reason == Code.LEADER_WORKER_SET_MISSING
    assert CRD in missing.message
    assert "install LeaderWorkerSet" in missing.message
    refused = variants(spanning(), spanning={"team": missing})
    assert isinstance(refused, Refusal)
    assert refused.reason == Code.LEADER_WORKER_SET_MISSING
    both = make_deployment(
        placement={"accelerators": [{"class": "h100", "nodes": 2}, {"class": "l40s"}]},
        model={"source": "hf://meta-llama/Llama-3.1-8B-Instruct", "contextLength": 8192},
    )
    snapshot = replace(offer(both, {}, {}, names=("h100", "l40s")), spanning={"team": missing})
    found = list_variants(both, snapshot, LoadShape(), POLICY)
    assert isinstance(found, VariantList)
    assert {variant.accelerator.metadata.name for variant in found.variants} == {"l40s"}
    assert missing in [item.refusal for item in found.rejected]
    # Of another namespace nothing is said.
    assert isinstance(variants(spanning(), spanning={"other": missing}), VariantList)


def test_what_is_known_of_the_kind_is_told() -> None:
    assert explain_groups(GroupSupport(), "team")[0]
    assert refuse_groups(GroupSupport(), "team") is None
    forbidden = explain_groups(GroupSupport(missing_rights=("create", "patch")), "team")
    assert (forbidden[0], forbidden[1].code) == (False, Code.LEADER_WORKER_SET_FORBIDDEN)
    assert "create, patch" in forbidden[1].message
    assert explain_groups(None, "team")[1].code == Code.LEADER_WORKER_SET_PENDING


def nodes(*free: int, variant: str = NAME, held: int = 0) -> Any:
    """Nodes of eight GPUs with so many free; on the first `held` of them there is half a group."""
    listed = [make_node(f"node-{index}", 8) for index in range(len(free))]
    usages = [
        Usage(f"node-{index}", "", "", {"nvidia.com/gpu": 8 - count - (8 if index < held else 0)})
        for index, count in enumerate(free)
    ]
    usages += [Usage(f"node-{index}", KEY, variant, {"nvidia.com/gpu": 8}, nodes=2) for index in range(held)]
    return build_inventory(
        listed, [usage for usage in usages if usage.accelerators["nvidia.com/gpu"]], complete=True
    )


def test_a_group_needs_whole_nodes_and_does_not_add_up_what_is_left_on_others() -> None:
    variant = only(spanning())
    assert measure_room(variant, nodes(8, 8, 4, 4)) == 1
    assert measure_room(variant, nodes(8, 4, 4, 4)) == 0
    assert measure_room(variant, nodes(8, 8, 8, 8)) == 2
    assert measure_room(variant, None) is None


def test_what_a_group_holds_is_its_own_to_use_again() -> None:
    variant = only(spanning())
    inventory = nodes(0, 0, 8, held=2)
    assert count_places(inventory, variant.pool) == 0
    assert count_places(inventory, variant.pool, frozenset({KEY})) == 1


def test_the_placement_gives_a_group_a_place_of_its_own() -> None:
    """Two classes: eight GPUs of two nodes, or one node; the free nodes decide."""
    deployment = make_deployment(
        model={"source": "hf://meta-llama/Llama-3.1-70B-Instruct", "contextLength": 8192},
        placement={
            "accelerators": [{"class": "h100", "count": 8, "nodes": 2}, {"class": "h200", "count": 2}]
        },
        replicas=2,
    )
    classes = {
        name: make_accelerator(name, price=price, nodeSelector={"kind": name}, perNode=8)
        for name, price in (("h100", "0.1"), ("h200", "9"))
    }
    listed = [make_node("h100-1", 8), make_node("h100-2", 8), make_node("h100-3", 8), make_node("h200-1", 8)]
    inventory = build_inventory(listed, (), complete=True)
    snapshot = replace(make_snapshot(deployment), accelerators=classes, inventory=inventory)
    found = list_variants(deployment, snapshot, LoadShape(), POLICY)
    assert isinstance(found, VariantList)
    groups = build_groups(inventory, list_offers(found), classes, frozenset({KEY}))
    (places,) = [group for group in groups if group.name.startswith("groups/")]
    assert places.free == (16,), "of three nodes two make one place"
    plan, _ = decide(snapshot, Memory(), NOW, Policy())
    chosen = plan.deployments[KEY].placement
    assert chosen is not None
    assert {item.variant.label: item.wanted for item in chosen.variants} == {
        "8 x h100 x 2 nodes": 1,
        "2 x h200": 1,
    }


def test_pods_of_a_group_cost_what_they_hold_and_answer_as_one() -> None:
    accelerators = {"h100": make_accelerator("h100", price="2")}
    held = find_holdings([member(0), member(1)], accelerators, {})
    assert [(item.accelerators, item.price) for item in held] == [(8, 16.0), (8, 16.0)]


def test_what_runs_is_found_by_the_name_of_its_variant() -> None:
    (running,), strange = find_running({NAME: 2, "other": 1}, ["h100", "l4"])
    assert (running.class_name, running.count, running.nodes, running.replicas) == ("h100", 16, 2, 2)
    assert strange == ("other",)


def status_of(child: ChildDeployment, pods: tuple[Pod, ...], now: float = NOW) -> Any:
    deployment = spanning()
    snapshot = replace(
        offer(deployment, {}, names=("h100",)),
        pods={KEY: pods},
        children={KEY: {NAME: child}},
    )
    plan, _ = decide(snapshot, Memory(), now, Policy())
    return build_status(
        deployment, plan.deployments[KEY], snapshot, (True, Reason(Code.ROUTED, "")), None, now
    )


def condition(status: Any, name: str) -> tuple[str, str]:
    (found,) = [item for item in status.conditions if item.type == name]
    return found.status, found.reason


def test_status_counts_groups_and_the_selector_their_leaders() -> None:
    status = status_of(ChildDeployment(1), fold_groups([member(0), member(1)]))
    assert (status.replicas, status.ready_replicas) == (1, 1)
    assert status.selector == "modelyard.dev/deployment=llama,app.kubernetes.io/component=engine"
    assert (status.placement.count, status.placement.nodes) == (8, 2)
    (variant,) = status.placement.variants
    assert (variant.replicas, variant.ready_replicas, variant.nodes) == (1, 1, 2)
    assert Decimal(status.cost.per_hour) == only(spanning()).price
    half = status_of(ChildDeployment(1), fold_groups([member(0, ready=False)]))
    assert Decimal(half.cost.per_hour) * 2 == only(spanning()).price


def test_groups_that_are_late_are_told_like_a_deployment_past_its_deadline() -> None:
    child = ChildDeployment(1, message="too slow", progressing_since=NOW - 100, patience=200)
    pods = fold_groups([member(0, ready=False), member(1)])
    assert condition(status_of(child, pods), "Stalled") == ("False", Code.NOT_STALLED)
    late = status_of(child, pods, NOW + 101)
    assert condition(late, "Stalled") == ("True", Code.START_TIMEOUT)
    assert condition(late, "Progressing") == ("False", Code.START_TIMEOUT)
    assert not replace(child, replicas=0).late(NOW + 1000)
    assert not replace(child, progressing_since=None).late(NOW + 1000)
