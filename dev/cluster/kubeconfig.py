"""Kubeconfig files that carry their certificates, so that a copy works anywhere on the machine."""

from __future__ import annotations

import base64
from pathlib import Path

import yaml

from dev.cluster.certificates import KeyPair


def write_kubeconfig(path: Path, *, url: str, ca: Path, client: KeyPair, user: str) -> Path:
    """Write a kubeconfig for `user` at the API server `url`; return `path`."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "local", "cluster": {"server": url, "certificate-authority-data": _encoded(ca)}}
        ],
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": _encoded(client.certificate),
                    "client-key-data": _encoded(client.key),
                },
            }
        ],
        "contexts": [{"name": "local", "context": {"cluster": "local", "user": user}}],
        "current-context": "local",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
