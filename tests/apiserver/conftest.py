"""The kinds on a real API server."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from dev.cluster.control_plane import ControlPlane
from tests.apiserver.client import APPLY, CRDS_PATH, ApiServer, Reply

CRDS = Path(__file__).parents[2] / "crds"


@pytest.fixture(scope="session")
def api_server(control_plane: ControlPlane) -> Iterator[ApiServer]:
    plane = control_plane
    with ApiServer(plane.url, plane.ca, plane.certificate, plane.key) as server:
        yield server


@pytest.fixture(scope="session")
def applied(api_server: ApiServer) -> dict[str, Reply]:
    """The reply to the application of each file of `crds/`, once all kinds are served."""
    replies = {}
    for file in sorted(CRDS.glob("*.yaml")):
        definition = yaml.safe_load(file.read_text(encoding="utf-8"))
        name = definition["metadata"]["name"]
        path = f"{CRDS_PATH}/{name}?fieldManager=tests&force=true&fieldValidation=Strict"
        replies[name] = api_server.request("PATCH", path, definition, APPLY)
        assert replies[name].status in {200, 201}, replies[name].message
        api_server.wait_for_condition(CRDS_PATH, name, "Established")
    return replies


@pytest.fixture
def kinds(api_server: ApiServer, applied: dict[str, Reply]) -> ApiServer:
    """The API server, with the kinds."""
    return api_server


@pytest.fixture
def namespace(make_namespace: Callable[..., str]) -> str:
    return make_namespace()
