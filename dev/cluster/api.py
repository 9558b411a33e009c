"""Clients of the Kubernetes API for the local cluster and the tests."""

from __future__ import annotations

from pathlib import Path

from kubernetes import client, config


def api_client(kubeconfig: Path) -> client.ApiClient:
    """Return a client that acts as the kubeconfig's user; close it, or use it in a `with`."""
    made = config.new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]
    if not isinstance(made, client.ApiClient):
        raise TypeError(f"the Kubernetes client made {made!r} of {kubeconfig}")
    return made
