"""Files that follow from what Helm renders: the page of permissions and deploy/."""

import tempfile
from pathlib import Path

from dev.charts.helm import CHART, Helm
from dev.charts.kustomize import COMPONENTS, kustomize_files
from dev.charts.permissions import PAGE, permissions_page

VALUES = Path(__file__).parents[2] / "tests" / "chart" / "values"
"""Combinations of values, which the tests render, too."""


def values_file(name: str) -> Path:
    """Return the file with the values of a combination."""
    return CHART / "values-openshift.yaml" if name == "openshift" else VALUES / f"{name}.yaml"


def rendered_files() -> dict[Path, str]:
    """Return the text of every file that is generated with Helm. Raises HelmError."""
    with tempfile.TemporaryDirectory() as folder:
        helm = Helm(Path(folder))
        options = {"default": (), "gateway-api": (), **COMPONENTS}
        rendered = {name: helm.template(CHART, [values_file(name)], *more) for name, more in options.items()}
    return dict([(PAGE, permissions_page(rendered)), *kustomize_files(rendered)])
