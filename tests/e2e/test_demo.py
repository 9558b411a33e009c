"""The demo as a newcomer starts it: it succeeds, reports, and leaves nothing behind, whenever it is stopped."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent.parent

STOP_TIMEOUT_S = 120
"""Everything stops in order; an API server with open watches has been seen to take 41 s."""


@contextmanager
def demo(folder: Path, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """Start a demo of one minute that keeps its files in `folder`; kill it if the test fails."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "dev.demo", "--minutes", "1"),
            *("--folder", str(folder / "run"), "--report", str(folder / "report"), *options),
        ],
        cwd=REPOSITORY,
        env={**os.environ, "CI": "true", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


def read_until(process: "subprocess.Popen[str]", pattern: str) -> str:
    """Return what the demo printed up to the line that matches."""
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if re.search(pattern, line):
            return printed
    pytest.fail(f"the demo ended before {pattern!r}:\n{printed}")


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of running processes that name the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                environment = (entry / "environ").read_bytes().decode(errors="replace")
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            if str(folder) in command + environment:
                found.append(command)
    return found


def test_the_demo_loses_nothing_reports_and_stays_until_it_is_stopped(tmp_path: Path) -> None:
    with demo(tmp_path, "--keep") as process:
        output = read_until(process, "Running until Ctrl-C")
        assert any("dev.standin" in command for command in processes_of(tmp_path))
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=STOP_TIMEOUT_S)
    assert process.returncode == 0, output + rest
    assert "curl -s http://127.0.0.1:" in output
    assert "10 times as fast as recorded" in output.replace("\n", " ").replace("  ", " ")
    # Every step is listed with its duration.
    assert re.search(r"Start etcd, API server, scheduler and controller manager +│ +\d+\.\d s", output)

    data = json.loads((tmp_path / "report" / "report.json").read_text())
    assert data["problems"] == []
    assert (data["lost"], data["held"]) == (0, 1)
    assert data["sent"] == data["answered"] > 500
    assert 5 <= data["peakReplicas"] <= 7
    assert data["chat"]["text"]
    assert data["cost"]["usd"] > 0
    last = {model["model"]: model for model in data["samples"][-1]["models"]}
    assert last["llama-3.1-8b"]["ready"] == 1
    assert {file.name for file in (tmp_path / "report").iterdir()} >= {
        "index.html",
        "load.png",
        "replicas.png",
    }

    assert processes_of(tmp_path) == []


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("▸ Start etcd", signal.SIGINT),
        ("▸ Start Envoy", signal.SIGTERM),
        (r"▸ Play .* requests", signal.SIGINT),
    ],
)
def test_a_stop_at_any_moment_stops_everything(tmp_path: Path, moment: str, number: signal.Signals) -> None:
    with demo(tmp_path) as process:
        read_until(process, moment)
        process.send_signal(number)
        output, _ = process.communicate(timeout=STOP_TIMEOUT_S)
    assert process.returncode == 130, output
    assert "Stopped on request" in output
    assert processes_of(tmp_path) == []


def test_a_killed_demo_leaves_no_process_and_the_next_one_starts(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        read_until(process, "▸ Start Envoy")
        process.kill()
        process.wait()
    with demo(tmp_path) as process:
        read_until(process, "▸ Apply examples")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=STOP_TIMEOUT_S)
    assert process.returncode == 130
    assert processes_of(tmp_path) == []


def test_two_demos_in_one_folder_are_refused(tmp_path: Path) -> None:
    with demo(tmp_path) as first:
        read_until(first, "▸ Start the operator")
        with demo(tmp_path) as second:
            output, _ = second.communicate(timeout=STOP_TIMEOUT_S)
        assert second.returncode == 1
        assert "runs a cluster in" in output
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=STOP_TIMEOUT_S)
    assert processes_of(tmp_path) == []
