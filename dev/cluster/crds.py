"""CustomResourceDefinitions of other projects, from their Go modules: the real ones, of pinned versions."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dev.cluster.binaries import BuildError


@dataclass(frozen=True, slots=True)
class CrdModule:
    """A Go module that holds definitions."""

    path: str
    version: str
    checksum: str
    """Hash of the module's content, as go.sum writes it: a proxy that serves something else is found out."""
    folder: str
    """Where the definitions are, relative to the module."""

    def load(self, name: str) -> dict[str, Any]:
        """Return one definition by the name of its file.

        Downloads the module once per machine, into Go's own cache. Raises BuildError if it cannot be had.
        """
        with tempfile.TemporaryDirectory() as empty:
            command = ["go", "mod", "download", "-json", f"{self.path}@{self.version}"]
            # Outside of any module: only this one is fetched, and nothing that it depends on.
            result = subprocess.run(command, cwd=empty, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise BuildError(
                f"{self.path} {self.version} cannot be downloaded: {result.stdout}{result.stderr}"
            )
        found = json.loads(result.stdout)
        if found["Sum"] != self.checksum:
            raise BuildError(f"{self.path} {self.version} is {found['Sum']}, not {self.checksum}")
        definition: dict[str, Any] = yaml.safe_load((Path(found["Dir"]) / self.folder / name).read_text())
        return definition


GATEWAY_API = CrdModule(
    "sigs.k8s.io/gateway-api",
    "v1.6.1",
    "h1:mock6phZbI6rvZerwrVNk7hVNymQgHo+6sJ81Ia7ftY=",
    "config/crd/standard",
)
LEADER_WORKER_SET = CrdModule(
    "sigs.k8s.io/lws",
    "v0.9.0",
    "h1:DcJCgxjjoGOx//QHZkeKpyiblxYq70aCRZNYSfykWyI=",
    "config/crd/bases",
)
INFERENCE_EXTENSION = CrdModule(
    "sigs.k8s.io/gateway-api-inference-extension",
    "v1.6.0",
    "h1:cjtwMJYcTnLXBYE5ffR1/hHhn7U1aIFfe2RITYmOXVA=",
    "config/crd/bases",
)
PROMETHEUS_OPERATOR = CrdModule(
    "github.com/prometheus-operator/prometheus-operator",
    "v0.85.0",
    "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
    "example/prometheus-operator-crd",
)
