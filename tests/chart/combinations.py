"""The combinations of values that the chart's README lists, and what Helm makes of them."""

import functools
import tempfile
from pathlib import Path

from dev.charts.helm import CHART, Helm, Manifest, parse

FOLDER = Path(__file__).parent
VALUES = {path.stem: path for path in sorted((FOLDER / "values").glob("*.yaml"))} | {
    "openshift": CHART / "values-openshift.yaml"
}
"""File with the values, by the combination's name."""
NAMES = sorted(VALUES)


@functools.cache
def text_of(name: str) -> str:
    """The objects of a combination, as Helm prints them."""
    with tempfile.TemporaryDirectory() as folder:
        return Helm(Path(folder)).template(CHART, [VALUES[name]])


def objects_of(name: str) -> list[Manifest]:
    """The objects of a combination."""
    return parse(text_of(name))


def find(objects: list[Manifest], kind: str, name: str) -> Manifest:
    """The only object of that kind and name."""
    (found,) = (item for item in objects if (item["kind"], item["metadata"]["name"]) == (kind, name))
    return found


def pods_of(objects: list[Manifest]) -> dict[str, Manifest]:
    """The pod of each Deployment, by the Deployment's name."""
    return {
        item["metadata"]["name"]: item["spec"]["template"] for item in objects if item["kind"] == "Deployment"
    }
