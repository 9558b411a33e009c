"""Install, upgrade and uninstall on a real API server, while a real operator with the chart's rights serves a model."""

import base64
import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dev.charts.helm import CHART, CRDS_CHART, NAMESPACE, HelmError
from dev.cluster.components import AUDITED_GROUP
from dev.cluster.mounted_secret import MountedSecret
from dev.cluster.waiting import wait_until
from dev.stack import Stack, envoy_component
from modelyard.kube.resources import CHILDREN
from modelyard.render.envoy.control_plane import ControlPlaneTls
from modelyard.runtime.xdstls import CLIENT_SECRET
from tests.apiserver.client import CRDS_PATH, MERGE
from tests.chart.combinations import FOLDER
from tests.chart.conftest import MODELS, Place

API_VERSION = "modelyard.dev/v1alpha1"
PREVIOUS = FOLDER / "previous"
"""The charts' first version, packaged."""
ACCOUNT = "modelyard-operator"
XDS_HOST = f"modelyard-xds.{NAMESPACE}.svc"
USER = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
KEY = "sk-chart-0123456789abcdef"
VALUES = (
    f"--set=watchNamespaces={{{MODELS}}}",
    "--set-string=acceleratorClasses.cpu.requests.cpu=1,acceleratorClasses.cpu.requests.memory=3Gi",
    "--set-string=acceleratorClasses.cpu.price.onDemand=0.1",
)

QUICK = (
    *("--read-interval", "0.5", "--ledger-interval", "1", "--tenant-interval", "0.5"),
    *("--provider-interval", "0.5", "--scaler-interval", "0.5", "--scale-down-window", "1"),
    *("--pending-patience", "2", "--placement-interval", "1", "--no-read-hub"),
)
"""Options of an operator that looks often, so that tests need not wait."""


def manifest(kind: str, name: str, spec: dict) -> dict:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def model(name: str, **spec) -> dict:
    fields = {
        "model": {"source": "hf://ggml-org/gemma-3-270m-it-GGUF:Q4_K_M", "contextLength": 2048},
        "engine": {"name": "LlamaCpp"},
        "placement": {"accelerators": [{"class": "cpu", "requestsPerMinute": 60}]},
        **spec,
    }
    return manifest("LLMDeployment", name, fields)


OBJECTS = [
    model("first", replicas=1),
    manifest("LLMRoute", "route", {"model": "front", "targets": [{"deployment": "first"}]}),
]
"""What a team has."""
SYSTEM = [
    {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "keys"},
        "data": {"key": base64.b64encode(KEY.encode()).decode()},
    },
    manifest("LLMTenant", "team", {"keys": [{"name": "keys", "key": "key"}]}),
    manifest(
        "LLMProvider",
        "provider",
        {
            "baseURL": "https://api.example.com/v1",
            "secretRef": {"name": "keys", "key": "key"},
            "models": [{"name": "large", "price": {"inputPerMillion": "1", "outputPerMillion": "2"}}],
        },
    ),
    manifest("LLMBudget", "all", {"amount": "1000", "period": "Day", "hard": {"action": "Refuse"}}),
]
"""What the platform team has, beside the gateway."""


@dataclass
class Installed:
    """A release, and the operator and Envoy that run with its rights."""

    place: Place
    stack: Stack

    def get(self, kind: str, name: str, namespace: str = MODELS, api_version: str = API_VERSION):
        resource = self.place.cluster.dynamic.resources.get(api_version=api_version, kind=kind)
        try:
            return resource.get(name=name, namespace=namespace).to_dict()
        except Exception as error:
            if getattr(error, "status", None) == 404:
                return None
            raise

    def condition(self, kind: str, name: str, namespace: str, condition: str) -> str:
        """Status of a condition; empty before it is set."""
        conditions = (self.get(kind, name, namespace).get("status") or {}).get("conditions") or ()
        return next((item["status"] for item in conditions if item["type"] == condition), "")

    def ready(self, kind: str, name: str, namespace: str = MODELS) -> str:
        """Status of the condition Ready."""
        return self.condition(kind, name, namespace, "Ready")

    def wait_ready(self, kind: str, name: str, namespace: str = MODELS) -> None:
        wait_until(
            lambda: self.ready(kind, name, namespace) == "True", f"{kind} {name} is Ready", timeout_s=90
        )

    def ask(self, name: str) -> str:
        """Send one chat request, and return the answer's model."""
        body = {"model": name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
        request = urllib.request.Request(
            f"{self.stack.url}/v1/chat/completions",
            json.dumps(body).encode(),
            {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)["model"]

    def encrypt(self) -> None:
        """Start operator and Envoy as the chart's present version does: they show each other certificates."""
        self.stack.operator.stop()
        self.stack.operator.command += ["--xds-tls", "--xds-tls-name", XDS_HOST]
        self.stack.operator.start()
        self.stack.operator.wait_ready()
        # One that stands by is Ready, too; the one that acts makes the Secret.
        found = wait_until(lambda: self.get("Secret", CLIENT_SECRET, NAMESPACE, "v1"), "a Secret for Envoy")
        secret = MountedSecret(self.stack.folder / "xds")
        secret.write({name: base64.b64decode(value) for name, value in found["data"].items()})
        tls = ControlPlaneTls(str(secret.folder), XDS_HOST, str(self.stack.folder))
        self.stack.envoy.stop()
        self.stack.envoy = envoy_component(
            self.stack.folder / "envoy.json",
            self.stack.ports,
            self.stack.folder / "envoy.log",
            "encrypted-envoy",
            tls,
        )
        self.stack.envoy.start()
        self.stack.envoy.wait_ready()

    def children(self) -> dict[tuple[str, str], tuple[str, int | None]]:
        """UID and generation of everything that belongs to a model, its pods included."""
        found = {}
        for api_version, kind in [(item.api_version, item.kind) for item in CHILDREN] + [("v1", "Pod")]:
            resource = self.place.cluster.dynamic.resources.get(api_version=api_version, kind=kind)
            for item in resource.get(namespace=MODELS, label_selector="modelyard.dev/deployment").items:
                metadata = item.to_dict()["metadata"]
                found[kind, metadata["name"]] = (metadata["uid"], metadata.get("generation"))
        return found


@pytest.fixture(scope="module")
def installed(place: Place, tmp_path_factory) -> Iterator[Installed]:
    """The previous version of both charts, and models that serve."""
    place.install(str(PREVIOUS / "modelyard-crds-0.1.0.tgz"), "modelyard-crds")
    options = ("--set=operator.highAvailability.enabled=true", *VALUES, *place.pinned())
    place.install(str(PREVIOUS / "modelyard-0.1.0.tgz"), "modelyard", *options)
    (pod, *_) = (
        place.cluster.dynamic.resources.get(api_version="v1", kind="Pod")
        .get(namespace=NAMESPACE, label_selector="app.kubernetes.io/component=operator")
        .items
    )
    account = place.plane.user_kubeconfig(
        USER, ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}", AUDITED_GROUP]
    )
    stack = Stack(
        folder=tmp_path_factory.mktemp("stack"),
        kubeconfig=place.plane.kubeconfig,
        operator_kubeconfig=account,
        namespaces=(MODELS,),
        nodes="cpu=1",
        node_prefix="real",
        standin_rules=("class=cpu:STANDIN_PROFILE=zero",),
        operator_options=(
            *("--namespace", NAMESPACE, "--lease", "modelyard-operator", "--pod-name", pod.metadata.name),
            *QUICK,
        ),
        anonymous=False,
    )
    with stack:
        found = Installed(place, stack)
        place.cluster.apply(SYSTEM, NAMESPACE)
        place.cluster.apply(OBJECTS, MODELS)
        for item in OBJECTS:
            found.wait_ready(item["kind"], item["metadata"]["name"])
        for item in SYSTEM[1:]:
            found.wait_ready(item["kind"], item["metadata"]["name"], NAMESPACE)
        yield found


def test_a_model_serves_with_the_rights_of_the_chart(installed):
    assert installed.ask("first") == "first"
    pods = installed.place.cluster.dynamic.resources.get(api_version="v1", kind="Pod")
    active = pods.get(namespace=NAMESPACE, label_selector="modelyard.dev/active=true").items
    assert len(active) == 1, "the Services find the operator that acts"


def test_upgrade_keeps_models_and_what_belongs_to_them(installed):
    before = installed.children()
    assert {kind for kind, _ in before} == {*(item.kind for item in CHILDREN), "Pod"}
    objects = {
        item["metadata"]["name"]: installed.get(item["kind"], item["metadata"]["name"])["metadata"]
        for item in OBJECTS
    }
    place = installed.place
    place.install(str(CRDS_CHART), "modelyard-crds")
    place.install(str(CHART), "modelyard", "--reset-then-reuse-values")
    installed.encrypt()
    for item in OBJECTS:
        installed.wait_ready(item["kind"], item["metadata"]["name"])
        after = installed.get(item["kind"], item["metadata"]["name"])["metadata"]
        was = objects[item["metadata"]["name"]]
        assert (after["uid"], after["generation"]) == (was["uid"], was["generation"])
    assert installed.children() == before
    assert installed.ask("first") == "first"


def test_objects_of_the_previous_kinds_are_valid_and_looked_after(installed):
    for items, namespace in ((OBJECTS, MODELS), (SYSTEM[1:], NAMESPACE)):
        # Written anew, as a pipeline does: accepted by the new kinds.
        installed.place.cluster.apply(items, namespace)
        for item in items:
            live = installed.get(item["kind"], item["metadata"]["name"], namespace)
            assert live["status"]["conditions"], item["kind"]
    # And reconciled: a change is acted on.
    installed.place.cluster.apply([model("first", replicas=2)], MODELS)
    wait_until(
        lambda: installed.get("LLMDeployment", "first")["status"].get("readyReplicas") == 2,
        "two replicas serve",
        timeout_s=90,
    )


def test_uninstall_leaves_the_kinds_and_the_models(installed):
    place = installed.place
    before = installed.children()
    place.helm.run("uninstall", "modelyard", f"--namespace={NAMESPACE}", "--wait", "--timeout=2m")
    left = []
    for resource in place.cluster.dynamic.resources:
        if not isinstance(resource, list) and "list" in (getattr(resource, "verbs", None) or ()):
            items = resource.get(label_selector="app.kubernetes.io/instance=modelyard").to_dict().get("items")
            left += [f"{resource.kind} {item['metadata']['name']}" for item in items or ()]
    assert left == []
    assert installed.children().keys() == before.keys()
    place.helm.run("uninstall", "modelyard-crds", f"--namespace={NAMESPACE}")
    kept = place.cluster.dynamic.resources.get(
        api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition"
    ).get()
    assert len([item for item in kept.items if item.metadata.name.endswith(".modelyard.dev")]) == len(
        list((Path(__file__).parents[2] / "crds").glob("*.yaml"))
    )
    assert installed.get("LLMDeployment", "first") is not None


def test_helm_takes_over_kinds_that_were_applied_without_it(installed):
    place = installed.place
    name = "llmdeployments.modelyard.dev"
    foreign = {"metadata": {"annotations": {"meta.helm.sh/release-name": None}}}
    assert place.server.request("PATCH", f"{CRDS_PATH}/{name}", foreign, MERGE).status == 200
    with pytest.raises(HelmError, match="invalid ownership metadata"):
        place.install(str(CRDS_CHART), "modelyard-crds")
    place.install(str(CRDS_CHART), "modelyard-crds", "--take-ownership")
    assert installed.get("LLMDeployment", "first") is not None
