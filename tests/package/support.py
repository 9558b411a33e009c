"""What the tests of the package share."""

import shutil
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def uv() -> str:
    """Return the uv that installed the environment: the PATH's, or our own copy."""
    return shutil.which("uv") or str(REPOSITORY / ".tools/uv/bin/uv")


def run(*command: str | Path) -> str:
    """Run a program to its end and return what it printed; a failure shows what it complained about."""
    done = subprocess.run([str(part) for part in command], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout
