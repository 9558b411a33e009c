"""Builds images from Dockerfiles with buildah, which needs no daemon, into a store of our own."""

from __future__ import annotations

import collections
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from dev.cluster.binaries import cache_folder
from dev.realnode.archive import CERTIFICATES
from dev.realnode.requirements import program

TAIL_LINES = 25
"""Lines of a failed build that are shown."""


class BuildFailedError(RuntimeError):
    """An image could not be built; the message ends with what the builder said last."""


class Builder:
    """buildah with its store in our cache: the machine's own images are neither seen nor touched."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._store = cache_folder() / "buildah"

    def build(self, context: Path, dockerfile: Path, name: str, base: str, archive: Path) -> None:
        """Build `name` on `base` and write it to `archive`. Raises BuildFailedError."""
        self.run(
            "build",
            # No container runtime below it: what a build runs sees this machine's network, to fetch packages.
            "--isolation=chroot",
            "--layers",
            "--pull=never",
            f"--build-arg=PYTHON_IMAGE={base}",
            # The authorities that this machine trusts: its proxy may have one of its own.
            f"--build-arg=SSL_CERT_FILE={CERTIFICATES}",
            f"--volume={CERTIFICATES}:{CERTIFICATES}:ro",
            f"--file={dockerfile}",
            f"--tag={name}",
            str(context),
        )
        self.export(name, archive)

    def export(self, name: str, archive: Path) -> None:
        """Write an image to an archive, whole or not at all."""
        partial = archive.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        self.run("push", "--quiet", name, f"docker-archive:{partial}:{name}")
        partial.rename(archive)

    def has(self, name: str) -> bool:
        """Tell whether the store has an image."""
        return (
            subprocess.run(
                self._command("inspect", "--type=image", name), capture_output=True, check=False
            ).returncode
            == 0
        )

    def pull(self, name: str) -> bool:
        """Fetch an image from its registry; tell whether that worked."""
        done = subprocess.run(
            self._command("pull", "--quiet", "--retry=0", name), capture_output=True, check=False
        )
        return done.returncode == 0

    def run(self, *arguments: str) -> str:
        """Run buildah; return its last line. Raises BuildFailedError."""
        command = self._command(*arguments)
        lines: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            for line in process.stdout or ():
                lines.append(line.rstrip())
                if line.startswith(("STEP", "[")):
                    self._report(f"  {line.rstrip()[:100]}")
        if process.returncode:
            raise BuildFailedError(f"`buildah {arguments[0]}` failed:\n" + "\n".join(lines))
        return lines[-1] if lines else ""

    def _command(self, *arguments: str) -> Sequence[str]:
        places = [f"--root={self._store}/images", f"--runroot={self._store}/run"]
        return [program("buildah"), *places, "--storage-driver=overlay", *arguments]
