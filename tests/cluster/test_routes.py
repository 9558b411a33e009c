"""An LLMRoute puts a name of its own in front of deployments, and says when it cannot."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from dev.cluster.waiting import wait_until


@pytest.fixture
def make_route(bed) -> Iterator[Any]:
    """Applies an LLMRoute; it is deleted after the test."""
    made = []

    def make(name: str, model: str, targets: list[dict[str, Any]]) -> None:
        manifest = {
            "apiVersion": "modelyard.dev/v1alpha1",
            "kind": "LLMRoute",
            "metadata": {"name": name},
            "spec": {"model": model, "targets": targets},
        }
        bed.cluster.apply([manifest], bed.namespace)
        made.append(manifest)

    yield make
    bed.cluster.delete(made, bed.namespace)


def route_ready(bed, name: str) -> tuple[str, str]:
    """Return status and reason of a route's Ready condition; empty strings before it is set."""
    status = bed.get("modelyard.dev/v1alpha1", "LLMRoute", name).get("status") or {}
    ready = [item for item in status.get("conditions", ()) if item["type"] == "Ready"]
    return (ready[0]["status"], ready[0]["reason"]) if ready else ("", "")


def wait_route(bed, name: str, status: str, reason: str) -> None:
    wait_until(lambda: route_ready(bed, name) == (status, reason), f"route {name} is {status} for {reason}")


async def test_a_route_splits_requests_by_weight(bed, make_model, make_route):
    one, two, off = (make_model({"replicas": 1}) for _ in range(3))
    for name in (one, two, off):
        bed.wait_condition(name, "Ready", "True", "Serving")
    make_route("split", "team-chat", [
        {"deployment": one, "weight": 3},
        {"deployment": two, "weight": 1},
        {"deployment": off, "weight": 0},
    ])  # fmt: skip
    wait_route(bed, "split", "True", "Routed")

    answers = [await bed.chat("team-chat") for _ in range(80)]

    assert {status for status, _ in answers} == {200}
    count = Counter(body["model"] for _, body in answers)
    assert count[off] == 0
    # 60 expected; five standard deviations of a binomial (3.9) either way.
    assert 41 <= count[one] <= 79
    assert count[one] + count[two] == 80


async def test_a_request_through_a_route_wakes_its_target(bed, make_model, make_route):
    sleeper = make_model({"scaling": {"min": 0, "max": 1, "idleAfter": "1h"}})
    bed.wait_condition(sleeper, "Ready", "True", "ScaledToZero")
    make_route("wake", "team-sleeper", [{"deployment": sleeper}])
    wait_route(bed, "wake", "True", "Routed")
    status, body = await bed.chat("team-sleeper")
    assert (status, body["model"]) == (200, sleeper)


async def test_a_missing_target_is_named_and_the_others_serve(bed, make_model, make_route):
    present = make_model({"replicas": 1})
    bed.wait_condition(present, "Ready", "True", "Serving")
    make_route("half", "team-half", [{"deployment": present}, {"deployment": "nowhere"}])
    wait_route(bed, "half", "False", "TargetNotFound")
    for _ in range(5):
        assert (await bed.chat("team-half"))[0] == 200
