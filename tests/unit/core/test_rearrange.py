"""The placement of the whole fleet: what deployments asked one by one, answered together."""

from dataclasses import replace
from typing import Any

import pytest

from modelyard.core.decide import decide
from modelyard.core.inventory import Inventory, Usage, build_inventory
from modelyard.core.placement.problem import Allocation, PlacementPolicy, PlacementProblem, PlacementResult
from modelyard.core.rearrange import adopt, build_problem
from modelyard.core.snapshot import ChildDeployment, Snapshot
from modelyard.core.state import Memory, Policy
from modelyard.core.variants import variant_name
from tests.unit.core.build import NOW, make_accelerator, make_deployment, make_node, make_snapshot

GPU = "nvidia.com/gpu"
POLICY = Policy()
PRICES = {"cheap": "1", "dear": "3"}
CLASSES = {
    name: make_accelerator(name, price=price, nodeSelector={"kind": name}) for name, price in PRICES.items()
}
CHEAP, DEAR = (variant_name(name, 1, spot=False) for name in PRICES)


def fleet(inventory: Inventory | None, **specs: dict[str, Any]) -> Snapshot:
    deployments = [
        make_deployment(f"team/{name}", **{"classes": tuple(PRICES), **spec}) for name, spec in specs.items()
    ]
    return replace(make_snapshot(*deployments), accelerators=CLASSES, inventory=inventory)


def nodes(**gpus: int) -> Inventory:
    return build_inventory([make_node(f"{kind}-1", count) for kind, count in gpus.items()], [], complete=True)


def wanted(snapshot: Snapshot, memory: Memory | None = None) -> tuple[dict[str, Any], Memory]:
    plan, after = decide(snapshot, memory or Memory(), NOW, POLICY)
    found = {}
    for key, item in plan.deployments.items():
        assert item.placement is not None
        found[key.partition("/")[2]] = {
            each.variant.name: each.wanted for each in item.placement.variants if each.wanted
        }
    return found, after


def ask(snapshot: Snapshot, memory: Memory) -> PlacementProblem | None:
    current = {
        key: {name: child.replicas for name, child in items.items()}
        for key, items in snapshot.children.items()
    }
    return build_problem(memory.deployments, current, CLASSES, snapshot.inventory, PlacementPolicy())


def test_where_nobody_has_a_choice_there_is_no_question():
    snapshot = fleet(nodes(cheap=1), one={"classes": ("cheap",)}, two={"classes": ("dear",)})
    _, memory = wanted(snapshot)
    assert ask(snapshot, memory) is None
    assert ask(snapshot, Memory()) is None


def test_together_they_never_take_more_than_there_is():
    snapshot = fleet(nodes(cheap=3, dear=4), one={"replicas": 2}, two={"replicas": 3})
    found, memory = wanted(snapshot)
    assert sum(counts.get(CHEAP, 0) for counts in found.values()) == 3
    assert sum(counts.get(DEAR, 0) for counts in found.values()) == 2
    assert {name: sum(counts.values()) for name, counts in found.items()} == {"one": 2, "two": 3}
    # It stays so, also for an operator that starts again once it is written.
    assert wanted(snapshot, memory)[0] == found
    children = {
        f"team/{name}": {variant: ChildDeployment(count) for variant, count in counts.items()}
        for name, counts in found.items()
    }
    assert wanted(replace(snapshot, children=children))[0] == found


def test_of_two_the_higher_priority_gets_the_cheap_ones():
    placement = {"accelerators": [{"class": "cheap", "requestsPerMinute": 60}], "priority": "high"}
    snapshot = fleet(
        nodes(cheap=2, dear=2), low={"replicas": 2}, high={"replicas": 2, "placement": placement}
    )
    found, _ = wanted(replace(snapshot, priorities={"high": 1000}))
    assert found == {"high": {CHEAP: 2}, "low": {DEAR: 2}}


def test_what_is_not_placed_here_counts_as_held():
    scaling = {"min": 1, "max": 9, "actuator": "External"}
    usages = [Usage("cheap-1", "team/external", CHEAP, {GPU: 2})]
    inventory = build_inventory([make_node("cheap-1", 3), make_node("dear-1", 3)], usages, complete=True)
    snapshot = fleet(inventory, one={"replicas": 2}, external={"scaling": scaling})
    snapshot = replace(snapshot, children={"team/external": {CHEAP: ChildDeployment(2)}})
    found, memory = wanted(snapshot)
    assert found["one"] == {CHEAP: 1, DEAR: 1}
    problem = ask(snapshot, memory)
    assert problem is not None
    assert [demand.key for demand in problem.demands] == ["team/one"]


def test_the_present_is_what_is_written_of_variants_that_are_known():
    snapshot = fleet(nodes(cheap=1), one={"replicas": 1})
    _, memory = wanted(snapshot)
    children = {CHEAP: ChildDeployment(1), DEAR: ChildDeployment(0), "gone": ChildDeployment(4)}
    problem = ask(replace(snapshot, children={"team/one": children}), memory)
    assert problem is not None
    assert dict(problem.demands[0].current) == {CHEAP: 1}


def answer(problem: PlacementProblem, **replicas: int) -> PlacementResult:
    allocations = {demand.key: Allocation(dict(replicas)) for demand in problem.demands}
    return PlacementResult(allocations, cost=0.0, objective=0.0, bound=0.0, method="optimal")


def test_an_answer_is_adopted_where_it_changes_something_and_still_answers_the_question():
    snapshot = fleet(None, one={"replicas": 2})
    _, memory = wanted(snapshot)
    problem = ask(snapshot, memory)
    assert problem is not None
    assert adopt(memory.deployments, problem, answer(problem, **{CHEAP: 2})) == {}
    changed = adopt(memory.deployments, problem, answer(problem, **{DEAR: 2}))
    assert changed["team/one"].allocation is not None
    assert changed["team/one"].allocation.allocation.replicas == {DEAR: 2}
    assert adopt({}, problem, answer(problem, **{DEAR: 2})) == {}
    _, later = wanted(fleet(None, one={"replicas": 3}), memory)
    assert adopt(later.deployments, problem, answer(problem, **{DEAR: 2})) == {}


@pytest.mark.parametrize("count", [0, 1])
def test_what_an_answer_leaves_out_waits_on_the_best_variant(count: int):
    snapshot = fleet(None, one={"replicas": 2})
    _, memory = wanted(snapshot)
    problem = ask(snapshot, memory)
    assert problem is not None
    placed = {DEAR: count} if count else {}
    adopted = adopt(memory.deployments, problem, answer(problem, **placed))
    expected = {CHEAP: 2 - count, **placed}
    own = adopted.get("team/one", memory.deployments["team/one"]).allocation
    assert own is not None
    assert own.allocation.replicas == expected
