"""`python -m dev.sbom FILE`: the bill of materials of what the operator runs with, from uv.lock, in CycloneDX 1.5.

uv writes it. The time and the number at random that it adds are left out: the same lock file gives the same file, byte
for byte, so that two builds can be compared. Both are optional in CycloneDX.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def find_uv() -> str:
    """Return the program: the caller's, one on the PATH, or the copy of `make install`."""
    return os.environ.get("UV") or shutil.which("uv") or str(ROOT / ".tools" / "uv" / "bin" / "uv")


def bill_of_materials() -> dict[str, Any]:
    """Return the bill of what is locked without the development group. Raises CalledProcessError where uv refuses."""
    done = subprocess.run(
        [
            *(find_uv(), "export", "--frozen", "--no-dev", "--quiet"),
            *("--format", "cyclonedx1.5", "--preview-features", "sbom-export"),
        ],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    bill: dict[str, Any] = json.loads(done.stdout)
    del bill["serialNumber"], bill["metadata"]["timestamp"]
    return bill


def main(arguments: list[str]) -> int:
    """Write the file. Returns the exit status."""
    if len(arguments) != 1:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    Path(arguments[0]).write_text(f"{json.dumps(bill_of_materials(), indent=2)}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
