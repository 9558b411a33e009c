"""What the tests on real nodes work with: the cluster's commands, its objects, and requests to its gateway."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dev.cluster.waiting import wait_until
from dev.realnode.cluster import RealCluster

REPOSITORY = Path(__file__).resolve().parent.parent.parent

SYSTEM = "modelyard-system"
TEAM = "my-team"
"""The namespaces that the README uses."""

TENANT = "e2e"
"""Name of the tests' own tenant, and of the Secret with its key."""

README = REPOSITORY / "README.md"
CHART_README = REPOSITORY / "charts/modelyard/README.md"

BUILD, INSTALL, UNINSTALL = (
    "docker push",
    "helm upgrade --install modelyard-crds",
    "helm uninstall modelyard-crds",
)
UPGRADE = "--reset-then-reuse-values"
"""What is in the console block with the commands for it, and in no other one of its document."""

FIRST_MODEL = "Your first model"
"""Heading of the README's section."""

MODEL_SOURCE = "hf://ggml-org/gemma-3-270m-it-GGUF:Q4_K_M"
"""The model whose weights are in the image of llama.cpp."""

SMALL = {"cpu": "400m", "memory": "1536Mi"}
"""What a replica asks for: so little that one node takes everything while the other one is drained."""

REQUEST_TIMEOUT_S = 120
"""Seconds for one request: a held one waits for an engine to start, which takes about ten on two busy cores."""

POD_TIMEOUT_S = 180
"""Seconds in which pods must start: eight of them share two cores."""

PASSED_BEFORE = 5
"""Answers that must have come before something is disturbed, so that it happens under load."""


@dataclass(frozen=True)
class Bed:
    """A cluster with Modelyard installed."""

    cluster: RealCluster
    tools: Path
    """Folder with kubectl and helm."""
    key: str
    """The tenant's."""

    def run(self, *command: str, stdin: str | None = None) -> str:
        """Run a program that finds this cluster, and return what it printed; a failure shows its words."""
        done = subprocess.run(
            command, cwd=REPOSITORY, env=self.environment, input=stdin, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
        return done.stdout

    @property
    def environment(self) -> dict[str, str]:
        """Where programs find kubectl, helm and the cluster."""
        return {
            **os.environ,
            "KUBECONFIG": str(self.cluster.kubeconfig),
            "PATH": f"{self.tools}{os.pathsep}{os.environ['PATH']}",
        }

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl."""
        return self.run("kubectl", *arguments, stdin=stdin)

    def apply(self, *objects: dict[str, Any]) -> None:
        """Make or change objects."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(items))

    def list(self, kind: str, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        """Return the objects of a kind."""
        printed = self.kubectl("get", kind, "-n", namespace, "-l", selector, "-o", "json")
        items: list[dict[str, Any]] = json.loads(printed)["items"]
        return items

    def engines(self, model: str) -> list[dict[str, Any]]:
        """Return the pods of a model, those that are leaving included."""
        return self.list("pods", TEAM, f"modelyard.dev/deployment={model}")

    def serving(self, model: str) -> list[str]:
        """Return the names of a model's pods that are Ready and stay."""
        return [
            pod["metadata"]["name"]
            for pod in self.engines(model)
            if is_ready(pod) and "deletionTimestamp" not in pod["metadata"]
        ]

    def wait_serving(self, model: str, count: int) -> list[str]:
        """Wait until a model has that many pods, all of them Ready, and return their names."""
        wait_until(
            lambda: len(self.engines(model)) == len(self.serving(model)) == count,
            f"{model} has {count} pods, all Ready",
            timeout_s=POD_TIMEOUT_S,
            interval_s=0.5,
        )
        return self.serving(model)

    def wait_rolled_out(self, *namespaces: str) -> None:
        """Wait until every Deployment of the namespaces is as it should be."""
        for namespace in namespaces:
            names = [item["metadata"]["name"] for item in self.list("deployments", namespace)]
            assert names
            for name in names:
                self.kubectl(
                    *("rollout", "status", f"deployment/{name}", "-n", namespace),
                    f"--timeout={POD_TIMEOUT_S}s",
                )

    @property
    def gateway(self) -> str:
        """Where clients send requests: the Service, by its cluster IP, over kube-proxy."""
        services = self.list("services", SYSTEM, "app.kubernetes.io/component=gateway")
        (address,) = {
            item["spec"]["clusterIP"] for item in services if item["spec"].get("clusterIP") != "None"
        }
        return f"http://{address}"

    def chat(self, model: str, *, key: str | None = None, url: str = "") -> tuple[int, dict[str, Any]]:
        """Ask a model something over a connection of its own; return status and body."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": "Once upon a time"}],
            "max_tokens": 4,
        }
        request = urllib.request.Request(
            f"{url or self.gateway}/v1/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {key or self.key}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_S) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, {"error": error.read().decode()}


@dataclass
class Traffic:
    """Requests for a model, one after another from each of a few clients, until the end. A context manager."""

    bed: Bed
    model: str
    clients: int = 2
    answered: int = 0
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._counted = threading.Condition()
        self._pool = ThreadPoolExecutor(self.clients)
        self._url = self.bed.gateway

    def __enter__(self) -> Self:
        for _ in range(self.clients):
            self._pool.submit(self._send)
        self.wait_more()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._pool.shutdown()

    def wait_more(self, count: int = PASSED_BEFORE) -> None:
        """Wait until that many more requests were answered."""
        wanted = self.answered + count
        with self._counted:
            assert self._counted.wait_for(lambda: self.answered >= wanted, REQUEST_TIMEOUT_S), self.failures

    def _send(self) -> None:
        while not self._stop.is_set():
            try:
                status, body = self.bed.chat(self.model, url=self._url)
                failure = None if status == 200 else f"{status} {body}"
            except OSError as error:
                failure = repr(error)
            with self._counted:
                if failure is None:
                    self.answered += 1
                else:
                    self.failures.append(failure)
                self._counted.notify_all()


def is_ready(pod: dict[str, Any]) -> bool:
    """Tell whether a pod is Ready."""
    conditions = pod["status"].get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def commands_of(document: Path, mark: str) -> list[str]:
    """Return the command lines of the console block that has the mark."""
    (block,) = (block for block in blocks_of(document.read_text(), "console") if mark in block)
    return commands_in(block)


def commands_in(block: str) -> list[str]:
    """Return the command lines of a console block, those that go on over a line end joined."""
    text = block.replace("\\\n", " ")
    return [line[2:] for line in text.splitlines() if line.startswith("$ ")]


def section_of(document: Path, heading: str) -> str:
    """Return the text under a heading of the second level."""
    _, _, text = document.read_text().partition(f"\n## {heading}\n")
    assert text, f"{document.name} has no section {heading!r}"
    return text.partition("\n## ")[0]


def blocks_of(text: str, language: str) -> list[str]:
    """Return the code blocks of a language, in their order."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def own(kind: str, name: str, namespace: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Return an object of one of our kinds."""
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": "modelyard.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def model(name: str, **spec: Any) -> dict[str, Any]:
    """Return an LLMDeployment of Gemma on llama.cpp, with parts of its spec."""
    fields = {
        "model": {"source": MODEL_SOURCE, "contextLength": 512},
        "engine": {"name": "LlamaCpp", "parameters": {"parallel": "2"}},
        "placement": {"accelerators": [{"class": "cpu", "requestsPerMinute": 30}]},
        # The shortest there is: answers here take a second, and every pod that leaves waits for this.
        "rollout": {"drainTimeout": "10s"},
    }
    return own("LLMDeployment", name, TEAM, {**fields, **spec})
