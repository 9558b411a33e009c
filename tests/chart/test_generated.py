"""What is generated in charts/ is up to date, and what is written by hand is complete."""

import json
import re
import tomllib
from importlib.metadata import version as package_version
from pathlib import Path

import pytest
import yaml

from dev.charts.generated import files
from dev.charts.helm import CHART, CRDS_CHART, NAMESPACE, RELEASE, ROOT
from modelyard.cli.bootstrap import BOOTSTRAP
from modelyard.cli.lazy import load_command
from modelyard.render.envoy.bootstrap import BootstrapSettings, bootstrap
from modelyard.render.envoy.control_plane import ControlPlaneTls, secret_files
from modelyard.render.envoy.settings import MEBIBYTE
from modelyard.render.settings import OPERATOR_URL
from tests.chart.combinations import NAMES, VALUES, find, objects_of, pods_of

SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_generated_file_is_up_to_date(path):
    assert path.read_text(encoding="utf-8") == files()[path], "run `python -m dev.charts`"


def test_chart_of_kinds_has_the_kinds_and_nothing_else(helm):
    rendered = {item["metadata"]["name"]: item for item in helm.render(CRDS_CHART)}
    expected = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "crds").glob("*.yaml")}
    assert rendered.keys() == expected.keys()
    for name, definition in rendered.items():
        assert definition["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
        assert definition["metadata"].pop("labels")["app.kubernetes.io/part-of"] == "modelyard"
        assert definition == expected[name]


def test_documents_name_objects_that_the_chart_makes():
    """Runbooks are copied into a terminal at night: a Deployment or an account of another name helps nobody."""
    made = {(item["kind"], item["metadata"]["name"]) for item in objects_of("default")}
    account = rf"(system:serviceaccount):{NAMESPACE}:([a-z-]+)"
    kinds = {"deploy": "Deployment", "service": "Service", "system:serviceaccount": "ServiceAccount"}
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    named = {
        (kinds[kind], name)
        for page in pages
        for line in page.read_text(encoding="utf-8").splitlines()
        if NAMESPACE in line
        for kind, name in re.findall(r"\b(deploy|service)/([a-z-]+)", line) + re.findall(account, line)
    }
    assert len(named) > 2
    assert named <= made


def test_kinds_go_with_their_release_if_asked_for(helm):
    for item in helm.render(CRDS_CHART, (), "--set=keep=false"):
        assert "annotations" not in item["metadata"]


@pytest.mark.parametrize("name", ["default", "everything", "plain-xds"])
def test_envoys_bootstrap_is_the_programs(name):
    objects = objects_of(name)
    values = yaml.safe_load(VALUES[name].read_text()).get("gateway", {})
    prefix = "llm" if name == "everything" else RELEASE
    (config,) = (item for item in objects if item["kind"] == "ConfigMap" and "bootstrap.json" in item["data"])
    default = BootstrapSettings("", 0)
    host = f"{prefix}-xds.{NAMESPACE}.svc"
    # As the gateway's pods mount the Secret and the ConfigMap.
    tls = ControlPlaneTls("/etc/modelyard/xds", host, "/etc/modelyard/envoy")
    secure = name != "plain-xds"
    written = {key: json.loads(text) for key, text in config["data"].items()}
    beside = {Path(path).name: content for path, content in secret_files(tls).items()} if secure else {}
    assert written.pop("bootstrap.json") == bootstrap(
        BootstrapSettings(
            control_plane_host=host,
            control_plane_port=18000,
            control_plane_tls=tls if secure else None,
            heap_bytes=values.get("heapMiB", default.heap_bytes // MEBIBYTE) * MEBIBYTE,
            max_connections=values.get("maxConnections", default.max_connections),
            drain_seconds=values.get("drainSeconds", default.drain_seconds),
        )
    )
    assert written == beside
    gateway = pods_of(objects)[f"{prefix}-gateway"]["spec"]
    mounts = {item["mountPath"] for item in gateway["containers"][0]["volumeMounts"]}
    assert ({tls.folder, tls.files} <= mounts) is secure


def test_ports_are_where_the_programs_listen():
    objects = objects_of("default")
    pods = pods_of(objects)
    (envoy,), (operator,) = (
        pods[f"{RELEASE}-{component}"]["spec"]["containers"] for component in ("gateway", "operator")
    )
    assert {port["name"]: port["containerPort"] for port in envoy["ports"]} == {
        "http": 8080,
        "stats": BOOTSTRAP.stats_port,
    }
    assert {port["name"]: port["containerPort"] for port in operator["ports"]} == {
        "xds": BOOTSTRAP.control_plane_port,
        "http": 8081,
    }
    service = find(objects, "Service", f"{RELEASE}-operator")
    assert (
        f"http://{service['metadata']['name']}.{NAMESPACE}.svc:{service['spec']['ports'][0]['port']}"
        == OPERATOR_URL
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_operator_takes_its_arguments(name):
    (pod,) = (pod for key, pod in pods_of(objects_of(name)).items() if key.endswith("-operator"))
    (container,) = pod["spec"]["containers"]
    assert container["command"] == ["modelyard"]
    command, *arguments = container["args"]
    context = load_command(command).make_context(command, arguments)
    assert context.params["namespace"] == NAMESPACE
    assert context.params["xds_tls"] is (name != "plain-xds")


@pytest.mark.parametrize("chart", [CHART, CRDS_CHART], ids=lambda chart: chart.name)
def test_the_charts_are_of_this_version_of_the_program(chart):
    """The default tag of the operator's image is the appVersion."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    about = yaml.safe_load((chart / "Chart.yaml").read_text(encoding="utf-8"))
    assert about["appVersion"] == project["version"] == package_version("modelyard")
    images = {
        item.partition(":")[2]
        for item in re.findall(r"modelyard:[\w.-]+", (ROOT / "README.md").read_text(encoding="utf-8"))
    }
    assert images == {project["version"]}, "what the README builds is what the chart pulls"


def test_readme_lists_the_combinations():
    readme = (CHART / "README.md").read_text(encoding="utf-8")
    table = readme.split("## Combinations that are tested")[1].split("\n## ")[0]
    assert sorted(re.findall(r"^\| ([a-z][a-z-]+) \|", table, re.MULTILINE)) == sorted(
        [*NAMES, "combination"]
    )


def paths(node, schema, prefix=""):
    """Every value of the schema, as a dotted path with what `node` has there (KeyError: it is missing)."""
    for name, below in schema["properties"].items():
        if name == "global":
            continue
        if "properties" in below:
            yield from paths(node[name], below, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", node[name]


def test_every_value_is_described_and_none_is_unknown():
    def check(node, schema):
        assert schema["additionalProperties"] is False
        assert set(node) | {"global"} == set(schema["properties"]) | {"global"}
        for name, value in node.items():
            assert schema["properties"][name]["description"]
            if "properties" in schema["properties"][name]:
                check(value, schema["properties"][name])

    check(DEFAULTS, SCHEMA)


def test_everything_changes_every_value():
    values = yaml.safe_load(VALUES["everything"].read_text())
    exempt = {
        # Excluded by watchNamespaces, by OpenShift's platform, or by the other names.
        *("clusterWide", "nameOverride", "gateway.anonymous", "openshift.modelSCC", "image.tag"),
        *("gateway.image.tag", "gateway.image.digest", "gateway.image.pullPolicy", "gateway.topologySpread"),
        *("operator.podSecurityContext", "gateway.podSecurityContext", "monitoring.dashboards.labels"),
        *("gateway.podDisruptionBudget.enabled", "networkPolicy.enabled", "xds.tls.enabled"),
    }

    def get(node, path):
        for part in path.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        return node

    same = {
        path
        for path, default in paths(DEFAULTS, SCHEMA)
        if get(values, path) is None or get(values, path) == default
    }
    assert same - exempt == set()
