"""Definitions of other projects on the API server of a test."""

from collections.abc import Iterator
from contextlib import contextmanager

from dev.cluster.crds import CrdModule
from dev.cluster.waiting import wait_until
from tests.apiserver.client import APPLY, CRDS_PATH, ApiServer


def install(server: ApiServer, module: CrdModule, file: str) -> str:
    """Install a definition, and return its path once the API server serves the kind."""
    definition = module.load(file)
    path = f"{CRDS_PATH}/{definition['metadata']['name']}"
    reply = server.request("PATCH", f"{path}?fieldManager=tests&force=true", definition, APPLY)
    assert reply.status in {200, 201}, reply.message
    spec = definition["spec"]
    collection = f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}"

    def served() -> bool:
        try:
            # All of them: with a limit the store answers, while the cache that others ask is still being filled, and
            # answers 429.
            return server.request("GET", collection).status == 200
        except ValueError:
            # A group that is not there is answered in plain text.
            return False

    wait_until(served, f"{definition['metadata']['name']} is served", timeout_s=60)
    return path


def remove(server: ApiServer, path: str) -> None:
    """Remove a definition, and wait until it is gone with its objects."""
    server.request("DELETE", path)
    wait_until(lambda: server.request("GET", path).status == 404, f"{path} is gone", timeout_s=60)


@contextmanager
def installed(server: ApiServer, module: CrdModule, file: str) -> Iterator[None]:
    """Have a definition meanwhile."""
    path = install(server, module, file)
    try:
        yield
    finally:
        remove(server, path)
