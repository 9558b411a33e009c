"""A namespace that stands for the gateway's, what is put there, and what a keeper makes of it."""

import base64
from dataclasses import replace
from typing import Any

from modelyard.render.settings import PodPeer
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.settings import OperatorSettings
from tests.apiserver.client import MERGE, ApiServer, resource_path


class GatewayNamespace:
    """Secrets and objects of one namespace; `settings` and `changed` are for the keeper that reads them."""

    def __init__(self, server: ApiServer, namespace: str, settings: OperatorSettings | None = None) -> None:
        self.server, self.namespace = server, namespace
        self.fleet, self.changes = Fleet(), 0
        settings = settings or OperatorSettings()
        self.settings = replace(settings, render=replace(settings.render, gateway=PodPeer(namespace, {})))

    def changed(self) -> None:
        self.changes += 1

    def create_secret(self, name: str, data: dict[str, bytes], kind: str = "Opaque") -> None:
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": kind,
            "metadata": {"name": name},
            "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
        }
        reply = self.server.request("POST", f"/api/v1/namespaces/{self.namespace}/secrets", body)
        assert reply.status == 201, reply.message

    def change_secret(self, name: str, data: dict[str, bytes]) -> None:
        body = {"data": {key: base64.b64encode(value).decode() for key, value in data.items()}}
        path = f"/api/v1/namespaces/{self.namespace}/secrets/{name}"
        assert self.server.request("PATCH", path, body, MERGE).status == 200

    def create(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        body = {
            "apiVersion": "modelyard.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": name},
            "spec": spec,
        }
        reply = self.server.request("POST", resource_path(kind, self.namespace), body)
        assert reply.status == 201, reply.message

    def read(self, kind: str, name: str) -> dict[str, Any]:
        return self.server.request("GET", resource_path(kind, self.namespace, name)).body

    def ready(self, kind: str, name: str) -> tuple[str, str, str]:
        """Status, reason and message of the only condition."""
        (condition,) = self.read(kind, name)["status"]["conditions"]
        return condition["status"], condition["reason"], condition["message"]
