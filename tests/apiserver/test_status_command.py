"""`modelyard status` on a real API server: what it reads, with few rights, and live in a terminal."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dev.cluster.control_plane import ControlPlane
from modelyard.api.meta import API_VERSION
from tests.apiserver.client import MERGE, ApiServer, resource_path

COMMAND = (sys.executable, "-m", "modelyard.cli", "status")
ROLES = "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/{}"

WAIT_S = 60
"""Longest wait for a terminal to show something: the command starts in a second on a free machine."""


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, str]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-11-30T09:00:00Z",
    }


@pytest.fixture
def make_model(kinds: ApiServer, namespace: str) -> Callable[..., str]:
    """Creates LLMDeployments with a status, as the operator writes it."""

    def make(name: str, *conditions: dict[str, str], **status: Any) -> str:
        manifest = {
            "apiVersion": API_VERSION,
            "kind": "LLMDeployment",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"model": {"source": "hf://a/b"}, "scaling": {"max": 8}},
        }
        made = kinds.request("POST", resource_path("LLMDeployment", namespace), manifest)
        assert made.status == 201, made.message
        write_status(kinds, namespace, name, *conditions, **status)
        return name

    return make


def write_status(
    kinds: ApiServer, namespace: str, name: str, *conditions: dict[str, str], **status: Any
) -> None:
    body = {"status": {"observedGeneration": 1, "conditions": list(conditions), **status}}
    path = resource_path("LLMDeployment", namespace, name, "status")
    written = kinds.request("PATCH", path, body, MERGE)
    assert written.status == 200, written.message


def run(kubeconfig: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [*COMMAND, "--kubeconfig", str(kubeconfig), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)


def test_it_reads_what_the_operator_wrote(
    control_plane: ControlPlane, make_model: Callable[..., str], namespace: str
) -> None:
    make_model("chat", condition("Ready", "True", "Serving"), replicas=2, readyReplicas=2)
    make_model("huge", condition("Stalled", "True", "DoesNotFit", "weights of 140 GB do not fit"))
    done = run(control_plane.kubeconfig, "-n", namespace, "-o", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [(row["name"], row["level"]) for row in found["deployments"]] == [
        (f"{namespace}/huge", "Stalled"),
        (f"{namespace}/chat", "Healthy"),
    ]
    assert "notes" not in found or found["notes"] == []
    assert run(control_plane.kubeconfig, "huge", "-n", namespace, "--check").returncode == 3
    assert run(control_plane.kubeconfig, "chat", "-n", namespace, "--check").returncode == 0


def test_somebody_with_few_rights_sees_what_they_may(
    control_plane: ControlPlane, kinds: ApiServer, make_model: Callable[..., str], namespace: str
) -> None:
    make_model("chat", condition("Ready", "True", "Serving"))
    user = f"caller-{namespace}"
    rule = {"apiGroups": ["modelyard.dev"], "resources": ["llmdeployments"], "verbs": ["list"]}
    about = {"name": "sees-models", "namespace": namespace}
    group = "rbac.authorization.k8s.io"
    subject = {"kind": "User", "name": user, "apiGroup": group}
    reference = {"kind": "Role", "name": "sees-models", "apiGroup": group}
    assert (
        kinds.request("POST", ROLES.format(namespace, "roles"), {"metadata": about, "rules": [rule]}).status
        == 201
    )
    binding = {"metadata": about, "subjects": [subject], "roleRef": reference}
    assert kinds.request("POST", ROLES.format(namespace, "rolebindings"), binding).status == 201

    kubeconfig = control_plane.user_kubeconfig(user)
    done = run(kubeconfig, "-n", namespace)
    assert done.returncode == 0, done.stderr
    assert f"{namespace}/chat" in done.stdout
    for kind in (
        "llmroutes",
        "llmbudgets",
        "llmtenants",
        "llmproviders",
        "acceleratorclasses",
        "nodes",
        "pods",
    ):
        assert f"{kind} may not be read" in done.stdout

    everywhere = run(kubeconfig)
    assert everywhere.returncode == 1
    assert "llmdeployments may not be read (in all namespaces: give one with -n)" in everywhere.stderr


class Terminal:
    """A program in a terminal of its own."""

    def __init__(self, *command: str) -> None:
        self.text = ""
        self._master, slave = pty.openpty()
        # Wide enough for the longest row; what does not fit is cut.
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200", "LINES": "60"}
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)

    def wait_for(self, text: str) -> None:
        """Read until the text has been shown since the last one that was waited for."""
        end = time.monotonic() + WAIT_S
        while text not in self.text:
            # A program that does not stop to write must not be waited for any longer.
            ready, _, _ = select.select([self._master], [], [], max(0, end - time.monotonic()))
            waited = not ready or time.monotonic() >= end
            assert not waited, f"{text!r} was not shown: {self.text[-2000:]}"
            self.text += os.read(self._master, 65536).decode(errors="replace")
        self.text = self.text.partition(text)[2]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)


@pytest.fixture
def start() -> Iterator[Callable[..., Terminal]]:
    terminals: list[Terminal] = []

    def make(*command: str) -> Terminal:
        terminals.append(Terminal(*command))
        return terminals[-1]

    yield make
    for terminal in terminals:
        terminal.close()


def test_watch_shows_a_change_in_place_and_ends_with_ctrl_c(
    control_plane: ControlPlane,
    kinds: ApiServer,
    make_model: Callable[..., str],
    namespace: str,
    start: Callable[..., Terminal],
) -> None:
    make_model("chat", condition("Ready", "True", "Serving"))
    options = ("--kubeconfig", str(control_plane.kubeconfig), "-n", namespace, "--watch", "--interval", "0.5")
    terminal = start(*COMMAND, *options)
    # The other screen of the terminal: what was there before comes back at the end.
    terminal.wait_for("\x1b[?1049h")
    terminal.wait_for("healthy")
    write_status(
        kinds, namespace, "chat", condition("Stalled", "True", "StartTimeout", "no pod became available")
    )
    terminal.wait_for("StartTimeout")
    terminal.wait_for("no pod became available")
    terminal.process.send_signal(signal.SIGINT)
    terminal.wait_for("\x1b[?1049l")
    assert terminal.process.wait(timeout=WAIT_S) == 130


def test_watch_outside_a_terminal_writes_what_changed(
    control_plane: ControlPlane, kinds: ApiServer, make_model: Callable[..., str], namespace: str
) -> None:
    make_model("chat", condition("Ready", "True", "Serving"))
    options = ("--kubeconfig", str(control_plane.kubeconfig), "-n", namespace, "--watch", "--interval", "0.5")
    with subprocess.Popen(
        [*COMMAND, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "")
            next(line for line in lines if "Serving" in line)
            write_status(kinds, namespace, "chat", condition("Ready", "False", "EngineFailed", "exit code 1"))
            assert "exit code 1" in next(line for line in lines if "exit code" in line)
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(timeout=WAIT_S) == 130
