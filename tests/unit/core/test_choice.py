"""Which ways of running a deployment there are, and why others are not."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.api.meta import Refusal
from modelyard.api.modelprofile import ModelProfile
from modelyard.catalog.engines import EngineVersion, ImageSettings
from modelyard.catalog.models import find_model
from modelyard.core.choice import (
    DEFAULT_REQUESTS_PER_MINUTE,
    VariantPolicy,
    expected_shape,
    find_objective,
    find_profile,
    list_variants,
    recall_variants,
)
from modelyard.core.decide import decide
from modelyard.core.load import LoadShape, Objective
from modelyard.core.plan import DeploymentPlan
from modelyard.core.reasons import Code
from modelyard.core.snapshot import Snapshot
from modelyard.core.state import Memory, Policy
from modelyard.core.variants import DEFAULT_START_TIME, VariantList, variant_name
from tests.unit.core.build import KEY, NOW, make_deployment, make_snapshot

SMALL = {"source": "hf://meta-llama/Llama-3.1-8B-Instruct", "contextLength": 8192}
LARGE = {"source": "hf://meta-llama/Llama-3.1-70B-Instruct", "contextLength": 8192}
SPOT = {"nodeSelector": {"type": "spot"}}
POLICY = VariantPolicy()


def ask(
    *classes: str, model: dict[str, Any] | None = None, size: int = 8, **spec: Any
) -> tuple[Any, Snapshot]:
    """A deployment that may run on these classes, of that model, and what there is."""
    deployment = make_deployment(
        model=SMALL if model is None else model, requests_per_minute=None, classes=classes, **spec
    )
    return deployment, offer(deployment, *({} for _ in classes), names=classes, size=size)


def offer(deployment: Any, *changes: dict[str, Any], names: tuple[str, ...], size: int = 8) -> Snapshot:
    """The classes with these fields; prices are the catalogue's unless they are stated."""
    found = {
        name: AcceleratorClass.model_validate(
            {"metadata": {"name": name}, "spec": {"resourceName": "nvidia.com/gpu", "perNode": size} | each}
        )
        for name, each in zip(names, changes, strict=True)
    }
    return replace(make_snapshot(deployment), accelerators=found)


def list_all(deployment: Any, snapshot: Snapshot, policy: VariantPolicy = POLICY) -> VariantList:
    found = list_variants(deployment, snapshot, LoadShape(), policy)
    assert isinstance(found, VariantList)
    return found


def refuse(deployment: Any, snapshot: Snapshot) -> Refusal:
    found = list_variants(deployment, snapshot, LoadShape(), POLICY)
    assert isinstance(found, Refusal)
    return found


def labels(found: VariantList) -> list[str]:
    return [variant.label for variant in found.variants]


def plan(deployment: Any, snapshot: Snapshot) -> DeploymentPlan:
    return decide(replace(snapshot, deployments={KEY: deployment}), Memory(), NOW, Policy())[0].deployments[
        KEY
    ]


def test_sizes_of_a_replica_are_the_smallest_that_fits_and_its_multiples():
    assert labels(list_all(*ask("h100"))) == ["1 x h100", "2 x h100", "4 x h100"]
    assert labels(list_all(*ask("h100", model=LARGE))) == ["2 x h100", "4 x h100", "8 x h100"]
    assert labels(list_all(*ask("h100", size=2))) == ["1 x h100", "2 x h100"]
    assert labels(list_all(*ask("h100", size=1))) == ["1 x h100"]


def test_a_stated_count_is_the_only_one():
    deployment, snapshot = ask("h100", placement={"accelerators": [{"class": "h100", "count": 4}]})
    assert labels(list_all(deployment, snapshot)) == ["4 x h100"]


def test_the_order_is_that_of_the_spec_and_without_one_by_name():
    assert labels(list_all(*ask("l40s", "h100", size=1))) == ["1 x l40s", "1 x h100"]
    deployment, snapshot = ask("l40s", "h100", size=1, placement={})
    assert labels(list_all(deployment, snapshot)) == ["1 x h100", "1 x l40s"]


def test_a_variant_says_fit_speed_price_and_where_its_capacity_comes_from():
    (variant,) = list_all(*ask("h100", size=1)).variants
    assert variant.fit is not None
    assert variant.speed is not None
    assert variant.prior is not None
    assert variant.capacity == variant.speed.requests_per_second > 1.0
    assert variant.hardware is not None
    assert variant.price == variant.hardware.on_demand
    assert "requests/s" in variant.basis
    assert variant.name == variant_name("h100", 1, spot=False)


def test_what_is_declared_wins_over_what_is_worked_out():
    accelerators = [{"class": "h100", "count": 1, "requestsPerMinute": 120}]
    (variant,) = list_all(*ask("h100", placement={"accelerators": accelerators})).variants
    assert (variant.capacity, variant.basis, variant.speed) == (2.0, "as declared", None)
    assert variant.meets_objective


def test_a_model_that_nobody_knows_runs_on_one_accelerator_at_an_assumed_rate():
    found = list_all(*ask("h100", model={"source": "hf://org/unheard-of"}))
    (variant,) = found.variants
    assert (variant.label, found.profile, variant.fit) == ("1 x h100", None, None)
    assert variant.capacity == DEFAULT_REQUESTS_PER_MINUTE / 60
    assert "requestsPerMinute" in variant.basis


def test_a_class_that_nobody_knows_has_the_price_that_it_states():
    deployment, _ = ask("nova", "star")
    priced = {"price": {"onDemand": "2", "spot": "0.5"}, "spot": SPOT}
    found = list_all(deployment, offer(deployment, priced, {}, names=("nova", "star")))
    assert [(item.label, item.price, item.hardware) for item in found.variants] == [
        ("1 x nova", Decimal(2), None),
        ("1 x star", None, None),
    ]
    deployment, _ = ask("nova", placement={"accelerators": [{"class": "nova"}], "spot": {}})
    found = list_all(deployment, offer(deployment, priced, names=("nova",)))
    assert [(item.label, item.price) for item in found.variants] == [
        ("1 x nova", Decimal(2)),
        ("1 x nova spot", Decimal("0.5")),
    ]


@pytest.mark.parametrize(
    ("allowed", "offered", "price", "expected"),
    [
        (True, True, {"onDemand": "2", "spot": "1"}, ["1 x h100", "1 x h100 spot"]),
        (False, True, {"onDemand": "2", "spot": "1"}, ["1 x h100"]),
        (True, False, {"onDemand": "2", "spot": "1"}, ["1 x h100"]),
        (True, True, {"onDemand": "2"}, ["1 x h100"]),
    ],
)
def test_spot_is_used_only_where_allowed_offered_and_priced(
    allowed: bool, offered: bool, price: dict[str, str], expected: list[str]
):
    placement: dict[str, Any] = {"accelerators": [{"class": "h100", "count": 1}]}
    if allowed:
        placement["spot"] = {"onDemandBase": 1}
    deployment, _ = ask("h100", placement=placement)
    snapshot = offer(deployment, {"price": price} | ({"spot": SPOT} if offered else {}), names=("h100",))
    found = list_all(deployment, snapshot)
    assert labels(found) == expected
    assert len({variant.name for variant in found.variants}) == len(expected)
    if len(expected) == 2:
        assert [variant.price for variant in found.variants] == [Decimal(2), Decimal(1)]
        assert found.variants[0].pool != found.variants[1].pool


def test_what_misses_the_objective_is_left_out_where_something_meets_it():
    # One L4 needs about 60 ms to read the weights of an 8B model once; an H100 needs about 6.
    scaling = {"min": 1, "max": 4, "slo": {"interTokenLatency": "30ms"}}
    found = list_all(*ask("l4", "h100", size=1, scaling=scaling))
    assert labels(found) == ["1 x h100"]
    assert [(item.label, item.refusal.reason) for item in found.rejected] == [
        ("1 x l4", Code.OBJECTIVE_MISSED)
    ]
    assert "30 ms" in found.rejected[0].refusal.message


def test_an_objective_that_all_miss_is_a_condition_and_no_refusal():
    scaling = {"min": 1, "max": 4, "slo": {"interTokenLatency": "1ms"}}
    item = plan(*ask("l4", size=1, scaling=scaling))
    assert item.refusal is None
    assert item.replicas == 1
    assert item.placement is not None
    assert item.placement.main.capacity > 0
    assert item.placement.preferred is not None
    assert item.placement.preferred.code == Code.OBJECTIVE_MISSED
    assert "misses" in item.placement.preferred.message


def test_a_model_that_does_not_fit_is_refused_with_the_sum_and_the_remedies():
    refusal = refuse(*ask("l4", model=LARGE, size=4))
    assert refusal.reason == Code.DOES_NOT_FIT
    # 70.6e9 parameters of two bytes over four, against what the engine takes of an L4.
    start = "l4: does not fit: on each of 4 accelerators weights 32.9 GiB + cache 80 KiB a token x 8192"
    assert refusal.message.startswith(start)
    assert "GiB too much. set model.quantization to fp8" in refusal.message


def test_a_stated_count_is_refused_with_the_nearest_way_too():
    """DeepSeek-R1 lacks less with tensor parallelism than in pipeline stages, whoever chooses the number."""
    model = {"source": "hf://deepseek-ai/DeepSeek-R1"}
    chosen = refuse(*ask("h100", model=model, size=8))
    placement = {"accelerators": [{"class": "h100", "count": 8}]}
    deployment = make_deployment(model=model, placement=placement)
    stated = refuse(deployment, offer(deployment, {}, names=("h100",), size=8))
    assert stated.message == chosen.message


def test_a_larger_model_starts_later():
    """The placement pays for both replicas of a move while the new one starts."""
    large = list_all(*ask("h100", model=LARGE)).variants[0]
    small = list_all(*ask("h100")).variants[0]
    unknown = list_all(*ask("h100", model={})).variants[0]
    assert small.start_time < unknown.start_time == DEFAULT_START_TIME < large.start_time


def test_no_remedy_asks_for_more_accelerators_than_a_node_has():
    refusal = refuse(*ask("l4", model=LARGE, size=1))
    assert refusal.message.startswith("l4: does not fit: weights 131.4 GiB + cache 320 KiB a token x 8192")
    assert "accelerators[].count" not in refusal.message
    both = refuse(*ask("l4", "t4", model=LARGE, size=1))
    assert "; t4: " in both.message


def test_a_class_on_which_it_does_not_fit_is_passed_over_with_its_reason():
    found = list_all(*ask("l4", "h100", model=LARGE, size=2))
    assert labels(found) == ["2 x h100"]
    assert [(item.label, item.refusal.reason) for item in found.rejected] == [("l4", Code.DOES_NOT_FIT)]


def test_a_selector_that_contradicts_the_class_is_a_conflict():
    accelerators = [{"class": "h100"}, {"class": "l40s"}]
    deployment, _ = ask(placement={"accelerators": accelerators, "nodeSelector": {"kind": "a"}})
    changes = ({"nodeSelector": {"kind": "b"}}, {"nodeSelector": {"kind": "a"}})
    found = list_all(deployment, offer(deployment, *changes, names=("h100", "l40s"), size=1))
    assert labels(found) == ["1 x l40s"]
    assert found.rejected[0].refusal.reason == Code.PLACEMENT_CONFLICT
    assert "kind=b" in found.rejected[0].refusal.message


def test_an_engine_without_an_image_for_the_class_is_refused():
    cpu = {"resourceName": None, "requests": {"cpu": "4", "memory": "64Gi"}}
    deployment, _ = ask("cpu", engine={"name": "vLLM", "version": "0.0.1"})
    assert refuse(deployment, offer(deployment, cpu, names=("cpu",))).reason not in ("", Code.DOES_NOT_FIT)


def test_a_profile_comes_from_the_spec_the_catalogue_or_what_was_read():
    known = find_model(SMALL["source"])
    assert known is not None
    own = known.profile.model_copy(update={"layers": 7})
    stated = make_deployment(model={**SMALL, "profile": own.model_dump(by_alias=True, exclude_none=True)})
    read: dict[str, ModelProfile] = {"hf://org/model": own}
    assert find_profile(stated, {}) == own
    assert find_profile(make_deployment(model=SMALL), {SMALL["source"]: own}) == known.profile
    assert find_profile(make_deployment(), read) == own
    assert find_profile(make_deployment(), {}) is None


def test_objective_and_expected_request_come_from_the_spec():
    slo = {"timeToFirstToken": "500ms", "interTokenLatency": "20ms"}
    assert find_objective(make_deployment(scaling={"max": 2, "slo": slo})) == Objective(0.5, 0.02)
    assert find_objective(make_deployment()) == Objective()
    assert expected_shape(make_deployment(load={"inputTokens": 9})) == LoadShape(
        9.0, LoadShape().output_tokens
    )
    assert expected_shape(make_deployment()) == LoadShape()


def test_the_list_is_made_again_only_when_what_it_is_made_of_changes():
    deployment, snapshot = ask("h100", size=1)
    images = ImageSettings(versions={"vLLM": (EngineVersion("0.32.0", {"rocm": "vllm"}),)})
    first = recall_variants(deployment, snapshot, LoadShape(), POLICY, {}, None)
    assert recall_variants(deployment, snapshot, LoadShape(), POLICY, {}, first) is first
    changed = offer(deployment, {"price": {"onDemand": "9"}}, names=("h100",), size=1)
    for other in (
        recall_variants(deployment, changed, LoadShape(), POLICY, {}, first),
        recall_variants(deployment, snapshot, LoadShape(9.0, 9.0), POLICY, {}, first),
        recall_variants(
            deployment, replace(snapshot, node_sizes={"h100": 2}), LoadShape(), POLICY, {}, first
        ),
        recall_variants(deployment, snapshot, LoadShape(), VariantPolicy(images), {}, first),
    ):
        assert other is not first
        assert other.answer != first.answer


@pytest.mark.parametrize(
    ("prices", "expected"), [(("1", "9"), "l40s"), (("9", "1"), "h100"), (("2", "2"), "l40s")]
)
def test_the_cheapest_that_meets_the_objective_is_placed(prices: tuple[str, str], expected: str):
    deployment, _ = ask("l40s", "h100", scaling={"min": 1, "max": 4})
    changes = ({"price": {"onDemand": price}} for price in prices)
    snapshot = offer(deployment, *changes, names=("l40s", "h100"), size=1)
    item = plan(deployment, snapshot)
    assert item.placement is not None
    # At equal prices, and no load for which the faster one would pay, the order in the spec decides.
    assert item.placement.main.accelerator.metadata.name == expected
