"""deploy/ has the objects that the chart renders, as kustomize itself builds them, in every combination."""

import itertools
import json
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from dev.charts.dump import dump_all, sort_key
from dev.charts.helm import CHART, ROOT, Manifest, parse
from dev.charts.kustomize import COMPONENTS, DEPLOY, EXCLUDED, OVERLAYS, without_helm
from dev.charts.rendered import rendered_files, values_file
from dev.cluster.binaries import KUSTOMIZE, ensure_module


def allowed(names: Iterable[str]) -> bool:
    return not any(pair <= set(names) for pair in EXCLUDED)


ALONE = [(), *((name,) for name in COMPONENTS)]
PAIRS = [pair for pair in itertools.combinations(COMPONENTS, 2) if allowed(pair)]
LARGEST = [
    tuple(name for name in COMPONENTS if name != left_out) for pair in EXCLUDED for left_out in sorted(pair)
]
SELECTIONS = [*ALONE, *PAIRS, *LARGEST, *(tuple(reversed(names)) for names in LARGEST)]
"""Components in the order in which they are named. Where each pair goes together, and all of them do, any selection
does: a patch is in the way of another one or it is not."""


def build(folder: Path) -> list[Manifest]:
    program = ensure_module(KUSTOMIZE) / "kustomize"
    done = subprocess.run([str(program), "build", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return parse(done.stdout)


def build_own(folder: Path, components: Iterable[str]) -> list[Manifest]:
    """Build what a user's own kustomization names."""
    content = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        # Kustomize takes relative paths only.
        "resources": [os.path.relpath(DEPLOY / "base", folder)],
        "components": [os.path.relpath(DEPLOY / "components" / name, folder) for name in components],
    }
    (folder / "kustomization.yaml").write_text(dump_all([content]), encoding="utf-8")
    return build(folder)


def unordered(item: Any) -> Any:
    """Sort the lists that components add to, whose order means nothing: arguments and rules."""
    if isinstance(item, dict):
        return {
            key: sorted(value, key=_text) if key in {"args", "rules"} and value else unordered(value)
            for key, value in item.items()
        }
    return [unordered(value) for value in item] if isinstance(item, list) else item


def _text(item: Any) -> str:
    return json.dumps(item, sort_keys=True)


def comparable(items: Iterable[Manifest]) -> dict[tuple[str, str, str], Manifest]:
    return {sort_key(item): unordered(item) for item in items}


def test_files_are_up_to_date():
    wanted = rendered_files()
    assert {path for path in wanted if path.read_text(encoding="utf-8") != wanted[path]} == set()
    assert set(DEPLOY.rglob("*.yaml")) <= wanted.keys(), "run `python -m dev.charts`"


@pytest.mark.parametrize("names", SELECTIONS, ids=lambda names: "+".join(names) or "base")
def test_kustomize_builds_what_helm_renders(helm, tmp_path, names):
    options = [option for name in names for option in COMPONENTS[name]]
    rendered = helm.render(CHART, [values_file(name) for name in names], *options)
    assert comparable(build_own(tmp_path, names)) == comparable(map(without_helm, rendered))


@pytest.mark.parametrize("names", OVERLAYS, ids="-".join)
def test_overlays_are_their_components(tmp_path, names):
    overlay = build(DEPLOY / "overlays" / "-".join(names))
    assert comparable(overlay) == comparable(build_own(tmp_path, names))


def test_what_the_chart_refuses_is_named(helm):
    for pair in EXCLUDED:
        with pytest.raises(RuntimeError, match=r"openshift\.modelSCC"):
            helm.render(CHART, [values_file(name) for name in pair])


def test_the_readme_lists_the_components():
    readme = (DEPLOY / "README.md").read_text(encoding="utf-8")
    assert [name for name in COMPONENTS if f"| `{name}` |" not in readme] == []
    assert {path.name for path in (DEPLOY / "components").iterdir()} == set(COMPONENTS)


def test_a_component_that_lost_its_place_fails_the_build(tmp_path):
    """Arguments are found by their place. A component after one that has moved them must not take away another."""
    patch = [{"op": "remove", "path": "/spec/template/spec/containers/0/args/0"}]
    own = {"target": {"kind": "Deployment", "name": "modelyard-operator"}, "patch": dump_all([patch])}
    moved = tmp_path / "moved"
    moved.mkdir()
    content = {"apiVersion": "kustomize.config.k8s.io/v1alpha1", "kind": "Component", "patches": [own]}
    (moved / "kustomization.yaml").write_text(dump_all([content]), encoding="utf-8")
    with pytest.raises(AssertionError, match="test"):
        build_own(tmp_path, [os.path.relpath(moved, DEPLOY / "components"), "cluster-wide"])


def test_kinds_are_those_of_the_project():
    definitions = [item for path in (ROOT / "crds").glob("*.yaml") for item in parse(path.read_text())]
    assert comparable(build(DEPLOY / "crds")) == comparable(definitions)


def test_namespace_is_restricted():
    (namespace,) = build(DEPLOY / "namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
