"""What real nodes need of the machine, what of it is missing, and how to get it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dev.realnode import cgroups

ADMIN_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where programs for administrators are, which not every PATH has."""

CNI_FOLDERS = (Path("/opt/cni/bin"), Path("/usr/lib/cni"), Path("/usr/libexec/cni"))
"""Where the network plugins are: upstream's, Debian's and Fedora's folder."""

CNI_PLUGINS = ("host-local", "loopback", "ptp")

PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "containerd-shim-runc-v2": "containerd",
    "runc": "runc",
    "ip": "iproute2",
    "mount": "mount",
    "nft": "nftables",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
}
"""Programs, and the Debian package that each is in."""

CNI_PACKAGE = "containernetworking-plugins"


@dataclass(frozen=True, slots=True)
class Lack:
    """Something that is missing, and the Debian package that brings it (None: no package does)."""

    what: str
    package: str | None = None


def program(name: str) -> str:
    """Return a program's path. Raises FileNotFoundError, which names its package."""
    path = _find(name)
    if path is None:
        raise FileNotFoundError(
            f"{name} is missing: `python -m dev.realnode install` brings {PROGRAMS[name]}"
        )
    return path


def cni_folder() -> Path:
    """Return the folder of the network plugins. Raises FileNotFoundError."""
    for folder in CNI_FOLDERS:
        if all((folder / plugin).exists() for plugin in CNI_PLUGINS):
            return folder
    raise FileNotFoundError(f"{CNI_PACKAGE} is missing: `python -m dev.realnode install` brings it")


def lacks() -> list[Lack]:
    """Return what is missing on this machine."""
    return list(_lacks())


def _lacks() -> Iterator[Lack]:
    if sys.platform != "linux":
        yield Lack("Linux")
        return
    if os.geteuid() != 0:
        yield Lack("root (real containers need namespaces, mounts and control groups)")
    if not cgroups.available():
        yield Lack(f"control groups at {cgroups.ROOT}")
    for name, package in PROGRAMS.items():
        if _find(name) is None:
            yield Lack(name, package)
    try:
        cni_folder()
    except FileNotFoundError:
        yield Lack(f"the network plugins {', '.join(CNI_PLUGINS)}", CNI_PACKAGE)


def explain(missing: list[Lack]) -> str:
    """Return one line that says what is missing and what to do."""
    line = "real nodes cannot run here: there is no " + ", no ".join(lack.what for lack in missing)
    packages = sorted({lack.package for lack in missing if lack.package})
    if packages:
        line += f" (Debian: apt-get install {' '.join(packages)}, or `python -m dev.realnode install`)"
    return line


def install(missing: list[Lack]) -> None:
    """Install what is missing from Debian's packages. Raises RuntimeError where that is not possible."""
    packages = sorted({lack.package for lack in missing if lack.package})
    if not packages:
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise RuntimeError(f"{explain(missing)}; it takes root and apt-get to install them from here")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "--quiet=2"], check=True, env=environment)
    # A containerd for this machine is not wanted: the package would start one where there is an init system to ask.
    policy = Path("/usr/sbin/policy-rc.d")
    own_policy = not policy.exists()
    if own_policy:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        command = ["apt-get", "install", "--quiet=2", "--yes", "--no-install-recommends", *packages]
        subprocess.run(command, check=True, env=environment)
    finally:
        if own_policy:
            policy.unlink()


def _find(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *ADMIN_FOLDERS]))
