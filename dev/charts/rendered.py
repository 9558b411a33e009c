"""Files that follow from what Helm renders: the page of permissions and deploy/."""

import tempfile
from pathlib import Path

from dev.charts.helm import CHART, Helm
from dev.charts.kustomize import OVERLAYS, kustomize_files
from dev.charts.permissions import PAGE, permissions_page

VALUES = Path(__file__).parents[2] / "tests" / "chart" / "values"
"""Combinations of values, which the tests render, too."""


def rendered_files() -> dict[Path, str]:
    """Return the text of every file that is generated with Helm. Raises HelmError."""
    with tempfile.TemporaryDirectory() as folder:
        helm = Helm(Path(folder))
        rendered = {
            name: helm.template(CHART, [VALUES / f"{name}.yaml"])
            for name in ("default", "gateway-api", *OVERLAYS)
        }
    return dict([(PAGE, permissions_page(rendered)), *kustomize_files(rendered)])
