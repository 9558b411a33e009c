"""Helm of the pinned version, with folders of its own."""

import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dev.cluster.binaries import HELM, ensure_module

ROOT = Path(__file__).parents[2]
CHARTS = ROOT / "charts"
CHART = CHARTS / "modelyard"
CRDS_CHART = CHARTS / "modelyard-crds"
RELEASE, NAMESPACE = "modelyard", "modelyard-system"
"""Name and namespace of the release, as the documents have them."""

KUBE_VERSION = "1.37.2"
"""Version that charts are rendered for without a cluster: the local control plane's."""

Manifest = dict[str, Any]


class HelmError(RuntimeError):
    """Helm refused; the message is what it said."""


@dataclass(frozen=True, slots=True)
class Helm:
    """Runs Helm. `folder` takes its cache and settings: those of the user are not read."""

    folder: Path
    kubeconfig: Path | None = None

    def run(self, *arguments: str) -> str:
        """Return what Helm prints. Raises HelmError."""
        own = {f"HELM_{name}_HOME": str(self.folder / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
        own["KUBECONFIG"] = str(self.kubeconfig or self.folder / "none")
        program = ensure_module(HELM) / "helm"
        done = subprocess.run(
            [str(program), *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env={**os.environ, **own},
        )
        if done.returncode:
            raise HelmError(done.stderr.strip() or done.stdout.strip())
        return done.stdout

    def template(self, chart: Path, values: Iterable[Path] = (), *options: str) -> str:
        """Return a chart's objects as text."""
        files = [f"--values={path}" for path in values]
        command = ["template", RELEASE, str(chart), f"--namespace={NAMESPACE}", *files, *options]
        return self.run(*command, f"--kube-version={KUBE_VERSION}")

    def render(self, chart: Path, values: Iterable[Path] = (), *options: str) -> list[Manifest]:
        """Return a chart's objects."""
        return parse(self.template(chart, values, *options))


def parse(text: str) -> list[Manifest]:
    """Return the objects of a YAML stream."""
    return [document for document in yaml.safe_load_all(text) if document]
