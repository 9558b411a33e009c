"""Control groups of the nodes: made where the kubelet looks for its root, removed when their processes have ended."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from dev.cluster.waiting import wait_until

ROOT = Path("/sys/fs/cgroup")

EMPTY_TIMEOUT_S = 20.0
"""Seconds until a group is empty after its processes were killed; usually none."""

UNIFIED = ROOT / "cgroup.controllers"
"""Is there when the machine has version 2 only (https://docs.kernel.org/admin-guide/cgroup-v2.html)."""


def make(name: str) -> None:
    """Make the group in every hierarchy of this machine."""
    for hierarchy in _hierarchies():
        group = hierarchy / name
        group.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):
            # Version 1: a new group has no processor and takes no process until it is given some.
            if (hierarchy / setting).exists() and not (group / setting).read_text().strip():
                (group / setting).write_text((hierarchy / setting).read_text())


def remove_soon(name: str) -> None:
    """Remove the group and those in it, as soon as the kernel has taken the last killed process out.

    Raises TimeoutError if something lives on in there.
    """
    wait_until(lambda: _removed(name), f"the control group {name} is empty", timeout_s=EMPTY_TIMEOUT_S)


def _removed(name: str) -> bool:
    try:
        for group in left(name):
            for inner in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
                inner.rmdir()
            group.rmdir()
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def left(name: str) -> list[Path]:
    """Return where the group still is."""
    return [hierarchy / name for hierarchy in _hierarchies() if (hierarchy / name).is_dir()]


def _hierarchies() -> Iterator[Path]:
    if UNIFIED.exists():
        yield ROOT
        return
    for path in sorted(ROOT.iterdir()):
        # A link, such as cpu to cpu,cpuacct, is the same hierarchy once more.
        if path.is_dir() and not path.is_symlink() and (path / "cgroup.procs").exists():
            yield path


def available() -> bool:
    """Tell whether this machine has control groups that we may change."""
    return shutil.which("mount") is not None and any(True for _ in _hierarchies())
