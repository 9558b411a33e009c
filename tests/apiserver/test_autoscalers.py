"""The outside autoscalers on a real API server: accepted, stored as written, nothing in them that it does not know."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from modelyard.api.meta import FIELD_MANAGER
from modelyard.core.external import ScalerKind
from modelyard.kube.compare import is_applied
from modelyard.kube.resources import SCALERS
from modelyard.render.autoscaler import build_autoscaler
from tests.apiserver.client import APPLY, CRDS_PATH, ApiServer
from tests.golden.cases import SETTINGS, read_workload

_NAME = "scaledobjects.keda.sh"
_TEXT, _COUNT = {"type": "string"}, {"type": "integer"}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


_RULES = _object(
    stabilizationWindowSeconds=_COUNT,
    selectPolicy=_TEXT,
    policies={"type": "array", "items": _object(type=_TEXT, value=_COUNT, periodSeconds=_COUNT)},
)
STAND_IN = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": _NAME},
    "spec": {
        "group": "keda.sh",
        "scope": "Namespaced",
        "names": {"kind": "ScaledObject", "plural": "scaledobjects", "singular": "scaledobject"},
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": _object(
                        spec=_object(
                            scaleTargetRef=_object(apiVersion=_TEXT, kind=_TEXT, name=_TEXT),
                            minReplicaCount=_COUNT,
                            maxReplicaCount=_COUNT,
                            advanced=_object(
                                restoreToOriginalReplicaCount={"type": "boolean"},
                                horizontalPodAutoscalerConfig=_object(
                                    behavior=_object(scaleUp=_RULES, scaleDown=_RULES)
                                ),
                            ),
                            triggers={
                                "type": "array",
                                "items": _object(
                                    type=_TEXT,
                                    metricType=_TEXT,
                                    metadata={"type": "object", "additionalProperties": _TEXT},
                                ),
                            },
                        )
                    )
                },
            }
        ],
    },
}
"""Not KEDA's own definition: a stand-in made by hand with the fields of its documentation that are used here
(https://keda.sh/docs/latest/reference/scaledobject-spec/), so that a field which it does not have is refused."""


@pytest.fixture(scope="module")
def keda(api_server: ApiServer) -> Iterator[None]:
    """The stand-in for KEDA's definition; it goes after this module, as others test that it is missing."""
    path = f"{CRDS_PATH}/{_NAME}?fieldManager=tests&force=true&fieldValidation=Strict"
    assert api_server.request("PATCH", path, STAND_IN, APPLY).status in {200, 201}
    api_server.wait_for_condition(CRDS_PATH, _NAME, "Established")
    yield
    api_server.request("DELETE", f"{CRDS_PATH}/{_NAME}")


@pytest.mark.usefixtures("keda")
@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [("HorizontalPodAutoscaler", True), ("HorizontalPodAutoscaler", False), ("ScaledObject", False)],
)
def test_autoscaler_is_accepted_and_stored_as_written(
    api_server: ApiServer, make_namespace: Callable[..., str], kind: ScalerKind, tolerance: bool
) -> None:
    namespace = make_namespace()
    built = build_autoscaler(kind, read_workload("external-actuator"), SETTINGS, tolerance=tolerance)
    body = copy.deepcopy(built)
    body["metadata"]["namespace"] = namespace
    path = SCALERS[kind].path(namespace, body["metadata"]["name"])
    query = f"?fieldManager={FIELD_MANAGER}&force=true&fieldValidation=Strict&dryRun=All"
    reply = api_server.request("PATCH", path + query, body, APPLY)
    assert (reply.status, reply.message, reply.warnings) == (201, "", ())
    # What was just written must not be written again: defaults and the server's own spelling make no difference.
    assert is_applied(body, reply.body)
