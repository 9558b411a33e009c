"""A reader's terminal: README's commands in one shell, in a folder like the repository."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import yaml

from tests.e2e_node.support import MODEL_SOURCE, REPOSITORY, SMALL

COMMAND_TIMEOUT_S = 300
"""Seconds for one command: the longest answers a request whose model starts meanwhile, on two busy cores."""

_DONE = "modelyard-e2e-command-is-over"
"""What the shell prints after each command, with the exit status."""

FORWARDING = "Forwarding from"
"""What `kubectl port-forward` prints when it takes connections: a reader sees that before the next command."""


class Terminal:
    """One shell, so that jobs and files of a command are there for the next one. A context manager."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._errors = (folder.parent / f"{folder.name}.err").open("w+")
        # A session of its own, so that jobs end with it.
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        for stream in (self._shell.stdin, self._shell.stdout, self._errors):
            assert stream is not None
            stream.close()
        self._shell.wait()

    def run(self, command: str) -> list[str]:
        """Type a command; return the lines that were printed until it was over, those of jobs included.

        After one that goes on beside the next ones, wait until it says that it is ready.
        """
        assert self._shell.stdin is not None
        self._shell.stdin.write(f"{command}\nprintf '\\n{_DONE} %s\\n' $?\n")
        self._shell.stdin.flush()
        printed: list[str] = []
        status = ""
        forwarding = not command.endswith("&")
        # A command that hangs ends with the shell, and this loop with it.
        watchdog = threading.Timer(COMMAND_TIMEOUT_S, self._end)
        watchdog.start()
        try:
            for line in self._lines():
                if line.startswith(_DONE):
                    status = line.split()[-1]
                else:
                    printed.append(line)
                    forwarding |= line.startswith(FORWARDING)
                if status and (forwarding or status != "0"):
                    break
        finally:
            watchdog.cancel()
        if status != "0" or not forwarding:
            late = f"not over in {COMMAND_TIMEOUT_S} s, or the shell has ended"
            ended = f"status {status}" if status else late
            pytest.fail("\n".join([f"$ {command}", *printed, self._said(), ended]))
        return printed

    def _lines(self) -> Iterator[str]:
        assert self._shell.stdout is not None
        for line in self._shell.stdout:
            yield line.rstrip("\n")

    def _said(self) -> str:
        self._errors.flush()
        return Path(self._errors.name).read_text()

    def _end(self) -> None:
        if self._shell.poll() is None:
            os.killpg(self._shell.pid, signal.SIGKILL)


def make_checkout(folder: Path) -> Path:
    """Return a folder with all that is in the repository, for commands that write beside it; examples are a copy."""
    folder.mkdir()
    for entry in REPOSITORY.iterdir():
        if entry.name not in {".git", "examples"}:
            (folder / entry.name).symlink_to(entry)
    shutil.copytree(REPOSITORY / "examples", folder / "examples")
    _fit_nodes(folder / "examples" / "accelerator-classes.yaml")
    _fit_model(folder / "examples" / "llama-3.1-8b.yaml")
    return folder


def _fit_nodes(file: Path) -> None:
    """Let a replica without a GPU ask for what two nodes on one small machine have."""
    classes = {item["metadata"]["name"]: item for item in yaml.safe_load_all(file.read_text())}
    assert "resourceName" not in classes["cpu"]["spec"]
    classes["cpu"]["spec"]["requests"] = SMALL
    file.write_text(yaml.safe_dump_all(classes.values()))


def _fit_model(file: Path) -> None:
    """Let README's model be the one whose weights are in the engine's image, without a GPU: the nodes reach no hub.

    Fails where the example is another one by now.
    """
    (manifest,) = yaml.safe_load_all(file.read_text())
    spec: dict[str, Any] = manifest["spec"]
    assert (spec["model"]["name"], spec["engine"]["name"]) == ("llama-3.1-8b", "vLLM")
    (option,) = spec["placement"]["accelerators"]
    spec["model"] |= {"source": MODEL_SOURCE, "contextLength": 128}
    spec["engine"] = {"name": "LlamaCpp"}
    option["class"] = "cpu"
    # Every pod that leaves waits for this, and the namespaces are to be gone within a minute.
    spec["rollout"]["drainTimeout"] = "10s"
    file.write_text(yaml.safe_dump(manifest))
