"""The Python image that ours are built on: from its registry where that answers, else an equal one made here."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from dev.cluster.binaries import cache_folder
from dev.realnode.builder import Builder, BuildFailedError
from dev.realnode.requirements import program

DOCKERFILE = Path(__file__).resolve().parent.parent.parent / "Dockerfile"


def _pinned() -> str:
    found = re.search(r"^ARG PYTHON_IMAGE=(\S+)", DOCKERFILE.read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"{DOCKERFILE} names no PYTHON_IMAGE")
    return found.group(1)


PYTHON_IMAGE = _pinned()
"""The Dockerfile's base, with tag and digest."""

SUITE = "trixie"
"""The Debian that the base is made of."""

MIRROR = "http://deb.debian.org/debian"
"""Packages are signed, and debootstrap checks that."""

PACKAGES = ("ca-certificates", "libpython3.13", "python3", "python3-venv")
"""What `python:slim` has beside a minimal Debian, as far as our images use it."""

REMOVED = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/log",
)
"""Folders that are emptied, as Debian's slim images do."""

COMMAND_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def ensure_base(report: Callable[[str], None]) -> str:
    """Return the name of the base image in the builder's store, after fetching or making it.

    Raises BuildFailedError.
    """
    builder = Builder(report)
    local = PYTHON_IMAGE.partition("@")[0]
    for name in (PYTHON_IMAGE, local):
        if builder.has(name):
            return name
    if builder.pull(PYTHON_IMAGE):
        return PYTHON_IMAGE
    report(
        f"NOTE: no registry gives {PYTHON_IMAGE}: an image of this name is made from Debian's own packages. It is as "
        "good for tests; published images are built on the real one."
    )
    _make(builder, local)
    return local


def _make(builder: Builder, name: str) -> None:
    """Put a minimal Debian with Python into the store, under that name."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder()) as temporary:
        root = Path(temporary) / "root"
        command = [
            program("debootstrap"),
            "--variant=minbase",
            f"--include={','.join(PACKAGES)}",
            SUITE,
            str(root),
            MIRROR,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BuildFailedError("`debootstrap` failed:\n" + "\n".join(done.stdout.splitlines()[-15:]))
        for folder in REMOVED:
            shutil.rmtree(root / folder, ignore_errors=True)
            (root / folder).mkdir(parents=True, exist_ok=True)
        layer = Path(temporary) / "root.tar"
        subprocess.run(["tar", "--numeric-owner", "-C", str(root), "-cf", str(layer), "."], check=True)
        container = builder.run("from", "scratch")
        builder.run("add", "--quiet", container, str(layer), "/")
        builder.run("config", f"--env=PATH={COMMAND_PATH}", "--cmd=python3", container)
        builder.run("commit", "--quiet", "--rm", container, name)
