"""Image archives of one layer, made from files of this machine: what `docker save` writes, and containerd imports.

For images whose content is a program that is here already; images with packages are built from Dockerfiles.
The format: https://github.com/moby/docker-image-spec/blob/main/spec.md.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
"""Where Debian, and the images that come from it, keep the authorities that programs trust."""


def write_archive(
    archive: Path, name: str, files: Mapping[str, Path], entrypoint: Sequence[str], user: str
) -> None:
    """Write an image `name` with files (path in the image to path here) that runs `entrypoint` as `user`."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for folder in sorted(_folders(files)):
            _add_folder(tar, folder, 0o755)
        _add_folder(tar, "tmp", 0o1777)
        for target, source in sorted(files.items()):
            info = tarfile.TarInfo(target.lstrip("/"))
            data = source.read_bytes()
            info.size = len(data)
            info.mode = 0o755 if source.stat().st_mode & 0o111 else 0o644
            tar.addfile(info, io.BytesIO(data))
    content = layer.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    config = json.dumps(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
            "os": "linux",
            "config": {"Entrypoint": list(entrypoint), "User": user, "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest: list[dict[str, Any]] = [
        {"Config": config_name, "RepoTags": [name], "Layers": [f"{digest}/layer.tar"]}
    ]
    partial = archive.with_suffix(".partial")
    with tarfile.open(partial, mode="w") as tar:
        for path, data in (
            (config_name, config),
            (f"{digest}/layer.tar", content),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    partial.rename(archive)


def with_libraries(program: Path) -> dict[str, Path]:
    """Return a program's shared libraries, by where its loader looks for them."""
    ldd = shutil.which("ldd") or "/usr/bin/ldd"
    printed = subprocess.run([ldd, str(program)], check=True, capture_output=True, text=True).stdout
    paths = [word for line in printed.splitlines() for word in line.split() if word.startswith("/")]
    return {path: Path(path).resolve() for path in paths}


def _folders(files: Iterable[str]) -> set[str]:
    return {str(parent).lstrip("/") for path in files for parent in Path(path).parents if str(parent) != "/"}


def _add_folder(tar: tarfile.TarFile, name: str, mode: int) -> None:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    info.mode = mode
    tar.addfile(info)
