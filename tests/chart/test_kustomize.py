"""deploy/ has the objects that the chart renders, as kustomize itself builds them."""

import subprocess

import pytest

from dev.charts.dump import sort_key
from dev.charts.helm import ROOT, parse
from dev.charts.kustomize import DEPLOY, OVERLAYS, without_helm
from dev.charts.rendered import rendered_files
from dev.cluster.binaries import KUSTOMIZE, ensure_module
from tests.chart.combinations import objects_of


def build(folder):
    program = ensure_module(KUSTOMIZE) / "kustomize"
    done = subprocess.run([str(program), "build", str(DEPLOY / folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return sorted(parse(done.stdout), key=sort_key)


def test_files_are_up_to_date():
    wanted = rendered_files()
    assert {path for path in wanted if path.read_text(encoding="utf-8") != wanted[path]} == set()
    assert set(DEPLOY.rglob("*.yaml")) <= wanted.keys(), "run `python -m dev.charts`"


@pytest.mark.parametrize(
    ("folder", "values"), [("base", "default"), *((f"overlays/{name}", name) for name in OVERLAYS)]
)
def test_kustomize_builds_what_helm_renders(folder, values):
    assert build(folder) == sorted(map(without_helm, objects_of(values)), key=sort_key)


def test_kinds_are_those_of_the_project():
    definitions = [item for path in (ROOT / "crds").glob("*.yaml") for item in parse(path.read_text())]
    assert build("crds") == sorted(definitions, key=sort_key)


def test_namespace_is_restricted():
    (namespace,) = build("namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
