"""What the chart renders, for every combination of the table. `MODELYARD_UPDATE_GOLDEN=1` writes the files anew."""

import os

import kubernetes_validate
import pytest
import yaml

from dev.charts.dump import dump
from dev.charts.helm import CHART, CRDS_CHART, NAMESPACE
from modelyard.runtime.xdstls import CLIENT_SECRET, SERVER_SECRET
from tests.chart.combinations import FOLDER, NAMES, VALUES, find, objects_of, pods_of
from tests.golden.pod_security import violations

OTHERS = {"AcceleratorClass", "PodMonitor", "ServiceMonitor", "PrometheusRule"}
"""Kinds that are not Kubernetes's own: an API server with their definitions judges them (test_api_server)."""


@pytest.mark.parametrize("name", NAMES)
def test_objects_equal_the_golden_file(name):
    path = FOLDER / "golden" / f"{name}.yaml"
    # Dashboards and alerts are files of their own; a test below compares them.
    objects = [item for item in objects_of(name) if "-dashboard-" not in item["metadata"]["name"]]
    for item in objects:
        if item["kind"] == "PrometheusRule":
            del item["spec"]["groups"]
    text = dump(objects)
    if os.environ.get("MODELYARD_UPDATE_GOLDEN") == "1":
        path.write_text(text, encoding="utf-8")
    assert text.splitlines() == path.read_text(encoding="utf-8").splitlines()


def test_every_golden_file_has_values():
    assert sorted(path.stem for path in (FOLDER / "golden").glob("*.yaml")) == NAMES


@pytest.mark.parametrize("chart", [CHART, CRDS_CHART], ids=lambda chart: chart.name)
def test_helm_lint(helm, chart):
    values = VALUES.values() if chart == CHART else ()
    for option in ([], *([f"--values={path}"] for path in values)):
        assert "0 chart(s) failed" in helm.run("lint", "--strict", str(chart), *option)


@pytest.mark.parametrize("name", NAMES)
def test_objects_are_valid_in_kubernetes_1_37(name):
    for item in objects_of(name):
        if item["kind"] not in OTHERS:
            kubernetes_validate.validate(item, "1.37", strict=True)


def test_the_validator_finds_faults():
    item = find(objects_of("default"), "Deployment", "modelyard-operator")
    item["spec"]["replicaz"] = 1
    with pytest.raises(kubernetes_validate.ValidationError, match="replicaz"):
        kubernetes_validate.validate(item, "1.37", strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_pods_are_restricted(name):
    for pod in pods_of(objects_of(name)).values():
        assert violations(pod["spec"]) == []
        for container in pod["spec"]["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True


@pytest.mark.parametrize("name", NAMES)
def test_objects_bear_the_recommended_labels(name):
    for item in objects_of(name):
        labels = item["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "modelyard"
        assert labels["app.kubernetes.io/instance"] == "modelyard"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert {"app.kubernetes.io/component", "app.kubernetes.io/version", "helm.sh/chart"} <= labels.keys()


@pytest.mark.parametrize("name", NAMES)
def test_selectors_find_their_pods(name):
    objects = objects_of(name)
    pods = [pod["metadata"]["labels"] for pod in pods_of(objects).values()]
    active = {"modelyard.dev/active": "true"}
    for item in objects:
        if item["kind"] == "Service":
            wanted = item["spec"]["selector"]
        elif item["kind"] in {"PodDisruptionBudget", "Deployment", "PodMonitor"}:
            wanted = item["spec"]["selector"]["matchLabels"]
        else:
            continue
        found = [labels for labels in pods if wanted.items() <= (labels | active).items()]
        assert len(found) == 1, item["metadata"]["name"]


@pytest.mark.parametrize("name", NAMES)
def test_a_new_version_of_the_chart_replaces_no_pod(name):
    for pod in pods_of(objects_of(name)).values():
        assert "helm.sh/chart" not in pod["metadata"]["labels"]
        assert "app.kubernetes.io/version" not in pod["metadata"]["labels"]


@pytest.mark.parametrize("name", NAMES)
def test_envoy_has_no_token_and_the_operator_one(name):
    for deployment, pod in pods_of(objects_of(name)).items():
        assert pod["spec"]["automountServiceAccountToken"] is deployment.endswith("-operator")


@pytest.mark.parametrize("name", NAMES)
def test_secrets_are_read_in_the_gateways_namespace_only(name):
    for item in objects_of(name):
        for rule in item.get("rules") or ():
            assert "*" not in {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            if "secrets" in rule["resources"]:
                assert (item["kind"], item["metadata"]["namespace"]) == ("Role", NAMESPACE)
                if "resourceNames" in rule:
                    assert rule["resourceNames"] == [CLIENT_SECRET, SERVER_SECRET]
                    assert rule["verbs"] == ["update"]
                else:
                    assert rule["verbs"] in (["get"], ["create"])


def test_default_has_no_toggle_on():
    kinds = {item["kind"] for item in objects_of("default")}
    assert kinds == {
        *("ClusterRole", "ClusterRoleBinding", "ConfigMap", "Deployment", "PodDisruptionBudget", "Role"),
        *("RoleBinding", "Service", "ServiceAccount"),
    }
    arguments = pods_of(objects_of("default"))["modelyard-operator"]["spec"]["containers"][0]["args"]
    assert "--anonymous" not in arguments
    assert f"--watch-namespace={NAMESPACE}" in arguments


def test_rights_are_roles_in_the_named_namespaces():
    roles = {
        (item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"])
        for item in objects_of("namespaces")
        if item["kind"] in {"Role", "ClusterRole"}
    }
    assert roles == {
        ("ClusterRole", None, "modelyard-system-modelyard-operator"),
        ("Role", "modelyard-system", "modelyard-operator"),
        ("Role", "team-a", "modelyard-operator-models"),
        ("Role", "team-b", "modelyard-operator-models"),
    }
    cluster = find(objects_of("namespaces"), "ClusterRole", "modelyard-system-modelyard-operator")
    assert {verb for rule in cluster["rules"] for verb in rule["verbs"]} == {"list", "watch"}


@pytest.mark.parametrize("name", NAMES)
def test_only_the_holder_of_the_lease_acts_and_is_in_the_services(name):
    objects = objects_of(name)
    (deployment,) = (
        item
        for item in objects
        if item["kind"] == "Deployment" and item["metadata"]["name"].endswith("-operator")
    )
    operator = deployment["metadata"]["name"]
    # The next one stands by when the one before it is told to end.
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert f"--lease={operator}" in container["args"]
    fields = {item["name"]: item["valueFrom"]["fieldRef"] for item in container["env"] if "valueFrom" in item}
    assert fields == {
        "POD_NAME": {"fieldPath": "metadata.name"},
        "POD_UID": {"fieldPath": "metadata.uid"},
    }
    for service in (operator, operator.replace("-operator", "-xds")):
        assert find(objects, "Service", service)["spec"]["selector"]["modelyard.dev/active"] == "true"


def test_a_second_operator_changes_nothing_of_the_first():
    """So `helm upgrade` only adds a pod, and takes one away."""
    alone, two = (dict(with_key(objects_of(name))) for name in ("default", "high-availability"))
    key = ("Deployment", "modelyard-operator")
    assert (alone[key]["spec"].pop("replicas"), two[key]["spec"].pop("replicas")) == (1, 2)
    assert two.pop(("PodDisruptionBudget", "modelyard-operator"))
    assert alone == two


def with_key(objects):
    for item in objects:
        yield (item["kind"], item["metadata"]["name"]), item


def test_tls_moves_the_gateway_to_443():
    objects = objects_of("tls")
    (port,) = find(objects, "Service", "modelyard-gateway")["spec"]["ports"]
    assert (port["name"], port["port"], port["targetPort"]) == ("https", 443, "https")
    pods = pods_of(objects)
    (envoy,) = pods["modelyard-gateway"]["spec"]["containers"]
    assert envoy["ports"][0] == {"name": "https", "containerPort": 8443}
    assert envoy["readinessProbe"]["httpGet"]["scheme"] == "HTTPS"
    arguments = pods["modelyard-operator"]["spec"]["containers"][0]["args"]
    assert {"--gateway-tls-secret=gateway-tls", "--gateway-address=0.0.0.0:8443"} <= set(arguments)


def test_openshift_fixes_no_ids():
    for pod in pods_of(objects_of("openshift")).values():
        context = pod["spec"]["securityContext"]
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & context.keys()
        assert context["runAsNonRoot"] is True


def test_operators_that_stand_by_are_scraped_too():
    """Where only the one that acts is scraped, nobody sees two that do."""
    objects = objects_of("monitoring")
    monitor = find(objects, "ServiceMonitor", "modelyard-operator")["spec"]
    (endpoint,) = monitor["endpoints"]
    (service,) = [
        item
        for item in objects
        if item["kind"] == "Service"
        and monitor["selector"]["matchLabels"].items() <= item["metadata"]["labels"].items()
        and endpoint["port"] in {port["name"] for port in item["spec"]["ports"]}
    ]
    standby = pods_of(objects)["modelyard-operator"]["metadata"]["labels"]
    assert "modelyard.dev/active" not in standby
    assert service["spec"]["selector"].items() <= standby.items()
    # Each pod is a target of its own, also one that is not ready.
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True


def test_the_alert_of_a_missing_operator_is_about_its_own_installation(helm):
    objects = helm.render(CHART, [VALUES["monitoring"]], "--namespace=team-x")
    rules = find(objects, "PrometheusRule", "modelyard")["spec"]["groups"]
    found = {
        rule["alert"]: rule["expr"]
        for group in rules
        for rule in group["rules"]
        if "team-x" in rule["expr"] or "modelyard-system" in rule["expr"]
    }
    assert found == {"ModelyardOperatorDown": 'absent(modelyard_leader{namespace="team-x"} == 1)'}


def test_dashboards_and_alerts_are_those_of_the_folders():
    objects = objects_of("monitoring")
    shown = {
        key: item["data"][key]
        for item in objects
        if item["kind"] == "ConfigMap" and item["metadata"]["labels"].get("grafana_dashboard") == "1"
        for key in item["data"]
    }
    assert {key: text.strip() for key, text in shown.items()} == {
        f"modelyard-{path.name}": path.read_text(encoding="utf-8").strip()
        for path in (CHART / "dashboards").glob("*.json")
    }
    rules = find(objects, "PrometheusRule", "modelyard")
    assert rules["spec"]["groups"] == [
        group
        for path in sorted((CHART / "alerts").glob("*.yaml"))
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    ]
