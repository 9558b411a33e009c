"""An LLMDeployment that cannot be read: somebody must be told, once, and nothing else happens."""

from types import SimpleNamespace

import pytest

from modelyard.kube.informers import Indices
from modelyard.kube.projections import Seen
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.reconcile import Reconciler
from modelyard.runtime.settings import OperatorSettings
from tests.unit.core.build import KEY


class Client:
    """Takes Events; anything else would be a write too many."""

    def __init__(self):
        self.events = []
        self.repeated = 0

    async def create(self, resource, manifest):
        assert resource.kind == "Event"
        self.events.append(manifest)
        return {"metadata": {"name": f"event-{len(self.events)}"}}

    async def merge(self, resource, _namespace, name, patch):
        assert (resource.kind, name, patch["count"]) == ("Event", "event-1", 2)
        self.repeated += 1
        return True


@pytest.fixture
def stage():
    client, fleet = Client(), Fleet(indices=Indices(deployments={}, routes={}, accelerators={}, pods={}))
    gone = SimpleNamespace(forget=lambda _key: None)
    publisher = SimpleNamespace(request=lambda: None)
    reconciler = Reconciler(
        client, gone, fleet, publisher, lambda _key: None, gone, gone, gone, gone, OperatorSettings()
    )
    return client, fleet, reconciler


def put(fleet, error, version="1"):
    fleet.indices.deployments[KEY] = [Seen("7", version, None, error)]


async def test_it_is_told_once_for_each_error(stage):
    client, fleet, reconciler = stage
    put(fleet, "spec.replicas: not a number")
    await reconciler.reconcile(KEY)
    await reconciler.reconcile(KEY)
    (event,) = client.events
    assert (event["type"], event["reason"]) == ("Warning", "Invalid")
    assert event["involvedObject"] == {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "LLMDeployment",
        "namespace": "team",
        "name": "llama",
        "uid": "7",
    }
    assert "spec.replicas: not a number" in event["message"]
    put(fleet, "spec.model: missing", "2")
    await reconciler.reconcile(KEY)
    assert len(client.events) == 2


async def test_one_that_was_gone_meanwhile_is_told_again(stage):
    client, fleet, reconciler = stage
    put(fleet, "spec.replicas: not a number")
    await reconciler.reconcile(KEY)
    del fleet.indices.deployments[KEY]
    await reconciler.reconcile(KEY)
    put(fleet, "spec.replicas: not a number", "3")
    await reconciler.reconcile(KEY)
    assert (len(client.events), client.repeated) == (1, 1)
