"""What can be had, as the pods show it."""

from dataclasses import replace

import pytest

from modelyard.core.availability import AvailabilityMemory, AvailabilityPolicy, Shortage, observe_availability
from modelyard.core.snapshot import Pod
from tests.unit.core.build import NOW, make_accelerator, make_pod, make_variant

POLICY = AvailabilityPolicy(patience=30.0, retry=300.0, longest_retry=1000.0)
VARIANT = make_variant()
NONE = AvailabilityMemory()


def pending(age: float, name: str = "pending", now: float = NOW, **changes: object) -> Pod:
    fields = {"waiting": "Unschedulable", "message": "0/3 nodes", "variant": VARIANT.name}
    return make_pod(
        name, created=now - age, phase="Pending", scheduled=False, ready=False, **{**fields, **changes}
    )


def running(name: str = "running") -> Pod:
    return make_pod(name, variant=VARIANT.name, created=NOW - 1000)


def observe(
    *pods: Pod, memory: AvailabilityMemory = NONE, now: float = NOW, room: int | None = None
) -> AvailabilityMemory:
    return observe_availability(memory, [VARIANT], pods, lambda _: room, now, POLICY)


def short(**changes: object) -> AvailabilityMemory:
    shortage = Shortage(ceiling=1, retry_at=NOW + 300.0, failures=1, free=0, message="0/3 nodes")
    return AvailabilityMemory({VARIANT.name: replace(shortage, **changes)})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "pod",
    [
        pending(29.0),
        pending(31.0, variant="other"),
        pending(31.0, waiting=""),
        pending(31.0, terminating=True),
        running(),
    ],
)
def test_within_the_patience_and_of_others_nothing_is_missing(pod: Pod):
    assert observe(pod) == NONE


def test_a_pod_that_stays_pending_is_a_shortage_with_what_has_a_node_as_its_ceiling():
    memory = observe(running("a"), running("b"), pending(31.0), room=3)
    assert memory.failures == {}
    assert memory.shortages == {VARIANT.name: Shortage(2, NOW + 300.0, 1, 3, "0/3 nodes")}


def test_the_time_of_a_new_node_is_waited_for_as_well():
    slow = make_variant(make_accelerator(provisionTime="5m"))
    seen = [
        observe_availability(NONE, [slow], [pending(age, variant=slow.name)], lambda _: None, NOW, POLICY)
        for age in (329.0, 331.0)
    ]
    assert [bool(memory.shortages) for memory in seen] == [False, True]


def test_a_shortage_stands_until_its_time():
    assert observe(memory=short(), now=NOW + 299.0) == short()
    tried = observe(memory=short(), now=NOW + 300.0)
    assert tried == AvailabilityMemory(failures=short().shortages)


@pytest.mark.parametrize(
    ("room", "free", "again"),
    [(1, 0, True), (0, 0, False), (4, 4, False), (None, 0, False), (9, None, False)],
)
def test_it_is_tried_before_its_time_only_when_there_is_more_room(
    room: int | None, free: int | None, again: bool
):
    memory = observe(memory=short(free=free), room=room)
    assert (not memory.shortages) is again


def test_waits_double_up_to_the_limit():
    memory, now, waits = NONE, NOW, []
    for _ in range(4):
        memory = observe(pending(31.0, now=now), memory=memory, now=now)
        (shortage,) = memory.shortages.values()
        waits.append(shortage.retry_at - now)
        now = shortage.retry_at
        memory = observe(memory=memory, now=now)
        assert memory.shortages == {}
    assert waits == [300.0, 600.0, 1000.0, 1000.0]


def test_an_attempt_that_works_is_forgotten():
    tried = AvailabilityMemory(failures=short().shortages)
    assert observe(running("a"), pending(1.0), memory=tried).failures == tried.failures
    assert observe(running("a"), memory=tried).failures == tried.failures
    assert observe(running("a"), running("b"), memory=tried) == NONE


def test_more_than_the_ceiling_can_be_had_if_more_have_a_node():
    memory = observe(running("a"), running("b"), memory=short())
    assert memory.shortages[VARIANT.name].ceiling == 2


def test_a_ceiling_falls_when_what_had_a_node_waits_now():
    memory = observe(pending(31.0), memory=short(ceiling=2))
    assert memory.shortages[VARIANT.name] == short(ceiling=0).shortages[VARIANT.name]
    # A pod that was just replaced says nothing yet, and one that is gone neither.
    assert observe(pending(1.0), memory=short(ceiling=2)) == short(ceiling=2)
    assert observe(memory=short(ceiling=2)) == short(ceiling=2)


def test_a_variant_that_is_gone_is_forgotten():
    assert observe_availability(short(), [], [], lambda _: None, NOW, POLICY) == NONE
