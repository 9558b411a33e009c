"""A child Deployment whose replicas go over to somebody else keeps them."""

import pytest

from modelyard.api.meta import FIELD_MANAGER
from modelyard.runtime.children import HANDOVER_MANAGER, ChildApplier
from tests.golden.cases import build_case


class Server:
    """Holds one Deployment and remembers who applied what."""

    def __init__(self, live):
        self.live, self.applied = live, []

    async def get(self, resource, namespace, name):
        del resource, namespace, name
        return self.live

    async def apply(self, resource, manifest, subresource="", manager=FIELD_MANAGER):
        del resource, subresource
        self.applied.append((manager, manifest["spec"].get("replicas")))
        return self.live


def deployment(replicas, owner):
    manifest = build_case("external-actuator")[-1]
    metadata = {
        **manifest["metadata"],
        "uid": "u",
        "resourceVersion": "1",
        "managedFields": [
            {
                "manager": owner,
                "operation": "Apply",
                "fieldsV1": {"f:spec": {"f:replicas": {}}},
            }
        ],
    }
    return manifest, {**manifest, "metadata": metadata, "spec": {**manifest["spec"], "replicas": replicas}}


@pytest.mark.parametrize(
    ("replicas", "least", "kept"), [(3, 1, 3), (3, 5, 5), (0, 1, 1)], ids=["as it is", "min", "asleep"]
)
async def test_our_replicas_are_left_at_their_number(replicas, least, kept):
    manifest, live = deployment(replicas, FIELD_MANAGER)
    server = Server(live)
    await ChildApplier(server).apply("team-b/qwen", manifest, least)
    assert server.applied == [(HANDOVER_MANAGER, kept), (FIELD_MANAGER, None)]


@pytest.mark.parametrize("replicas", [0, 3])
async def test_the_replicas_of_others_are_not_touched(replicas):
    """An HPA does nothing at 0, and a person may mean just that."""
    manifest, live = deployment(replicas, "kubectl")
    server = Server(live)
    await ChildApplier(server).apply("team-b/qwen", manifest, 2)
    assert server.applied == []
