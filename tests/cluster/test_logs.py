"""`modelyard status`, `explain` and `logs` beside an operator that runs: pods, their logs, and what happened."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dev.cluster.control_plane import ControlPlane
from dev.cluster.waiting import wait_until

COMMAND = (sys.executable, "-m", "modelyard.cli")

WAIT_S = 60
"""Longest wait for a command."""


@pytest.fixture
def call(bed, control_plane: ControlPlane):
    """Runs a command of the command line in the bed's cluster."""

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [*COMMAND, *arguments, "--kubeconfig", str(control_plane.kubeconfig)]
        return subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)

    return run


def pods(bed, name: str) -> list[str]:
    found = bed.get("v1", "Pod")["items"]
    label = "modelyard.dev/deployment"
    return sorted(
        item["metadata"]["name"] for item in found if (item["metadata"]["labels"] or {}).get(label) == name
    )


async def test_logs_of_every_pod_with_its_name(bed, make_model, call):
    name = make_model({"replicas": 2})
    wait_until(lambda: bed.deployment(name).status.ready_replicas == 2, "two replicas serve", timeout_s=60)
    assert (await bed.chat(name))[0] == 200
    done = call("logs", "llmdep", f"{bed.namespace}/{name}")
    assert done.returncode == 0, done.stderr
    written = {line.partition("] ")[0].removeprefix("[") for line in done.stdout.splitlines()}
    assert written == set(pods(bed, name))
    last = call("logs", "llmdep", f"{bed.namespace}/{name}", "--tail", "1")
    assert len(last.stdout.splitlines()) == 2
    assert set(last.stdout.splitlines()) <= set(done.stdout.splitlines())


def test_a_run_that_never_was_has_no_log(bed, make_model, call):
    name = make_model({"replicas": 1})
    bed.wait_condition(name, "Ready", "True", "Serving")
    done = call("logs", "llmdep", name, "-n", bed.namespace, "--previous")
    assert (done.returncode, done.stdout) == (1, "")
    assert "previous terminated container" in done.stderr


@contextmanager
def following(control_plane: ControlPlane, log: Path, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a command with its output in a file."""
    command = [*COMMAND, *arguments, "--kubeconfig", str(control_plane.kubeconfig)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_following_takes_in_a_new_pod_and_what_happens(bed, make_model, control_plane, tmp_path):
    name = make_model({"replicas": 1})
    bed.wait_condition(name, "Ready", "True", "Serving")
    log = tmp_path / "followed"
    first = pods(bed, name)
    options = ("logs", "llmdep", name, "-n", bed.namespace, "-f", "--events")
    with following(control_plane, log, *options) as process:
        wait_until(lambda: f"[{first[0]}] " in log.read_text(), "the first pod's log", timeout_s=WAIT_S)
        manifest = {
            "apiVersion": "modelyard.dev/v1alpha1",
            "kind": "LLMDeployment",
            "metadata": {"name": name},
            "spec": {**bed.get("modelyard.dev/v1alpha1", "LLMDeployment", name)["spec"], "replicas": 2},
        }
        bed.cluster.apply([manifest], bed.namespace)
        wait_until(lambda: len(pods(bed, name)) == 2, "a second pod", timeout_s=WAIT_S)
        (second,) = set(pods(bed, name)) - set(first)
        wait_until(lambda: f"[{second}] " in log.read_text(), "the second pod's log", timeout_s=WAIT_S)
        wait_until(lambda: "[event] " in log.read_text(), "an Event", timeout_s=WAIT_S)
        wait_until(lambda: "[decision] " in log.read_text(), "a change of size", timeout_s=WAIT_S)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(timeout=WAIT_S) == 130
    assert f"({second} has started)" in log.read_text()


def test_status_tells_what_runs_and_where(bed, make_model, call):
    name = make_model({"replicas": 1})
    bed.wait_condition(name, "Progressing", "False", "Complete")
    done = call("status", name, "-n", bed.namespace, "-o", "json", "--check")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    (row,) = found["deployments"]
    assert (row["name"], row["level"], row["ready"], row["wanted"]) == (
        f"{bed.namespace}/{name}",
        "Healthy",
        1,
        1,
    )
    assert row["accelerators"] == "1 x h100"
    assert row["costPerHour"] == "6.88"
    h100 = next(item for item in found["accelerators"] if item["name"] == "h100")
    assert h100["used"] >= 1
    assert h100["used"] + h100["free"] == h100["total"]


def test_explain_tells_of_its_pods(bed, make_model, call):
    name = make_model({"replicas": 1})
    bed.wait_condition(name, "Ready", "True", "Serving")
    done = call("explain", "llmdep", name, "-n", bed.namespace, "-o", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [(item["name"], item["state"]) for item in found["pods"]] == [(pods(bed, name)[0], "serves")]
    assert "Serving" in {item["reason"] for item in found["events"]}
