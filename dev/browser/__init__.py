"""Finds the browser that the web page is tested in, and installs it where that is possible."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
"""Programs that are Chromium: of Debian, of Ubuntu, and of Google."""

INSTALL = "apt-get install -y --no-install-recommends chromium"

INSTALL_TIMEOUT_S = 600
"""Longest time for the installation: 300 MB of packages on a slow line."""


class BrowserMissingError(Exception):
    """There is no browser, and none can be installed here. The message names the remedy."""


class BrowserInstallError(Exception):
    """Chromium could be installed here, and its installation failed."""


def find_chromium() -> Path | None:
    """Return Chromium's program; None if there is none."""
    found = (shutil.which(name) for name in NAMES)
    return next((Path(path) for path in found if path), None)


def ensure_chromium(report: Callable[[str], None] = print) -> Path:
    """Return Chromium's program; install Debian's where this process may.

    Raises BrowserMissingError where that is not possible, BrowserInstallError where it is and does not succeed.
    """
    if (found := find_chromium()) is not None:
        return found
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise BrowserMissingError(
            f"there is no Chromium on PATH: run '{INSTALL}' as root, or what your system has"
        )
    report(f"Installing Chromium: {INSTALL}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update"], INSTALL.split()):
        # Another installation may hold the lock.
        done = subprocess.run(
            [command[0], "-o", f"DPkg::Lock::Timeout={INSTALL_TIMEOUT_S}", "-qq", *command[1:]],
            env=environment,
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise BrowserInstallError(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")
    found = find_chromium()
    if found is None:
        raise BrowserInstallError(f"{INSTALL} brought no Chromium")
    return found
