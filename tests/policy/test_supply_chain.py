"""What is installed is what was locked, and what SECURITY.md promises has a test."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = [ROOT / "uv.lock", *sorted((ROOT / "dev").glob("**/uv.lock"))]
LOCK: dict[str, Any] = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
PACKAGES = [
    (file, package) for file in LOCKS for package in tomllib.loads(file.read_text("utf-8"))["package"]
]
"""Of every lock file: the project's, and those of tools that have an environment of their own."""


def test_every_lock_file_is_looked_at() -> None:
    done = subprocess.run(
        ["git", "ls-files", "*uv.lock"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {ROOT / name for name in done.stdout.splitlines()} == set(LOCKS)


@pytest.mark.parametrize(
    ("file", "package"), PACKAGES, ids=[f"{file.parent.name}-{package['name']}" for file, package in PACKAGES]
)
def test_every_file_of_the_locks_has_a_hash(file: Path, package: dict[str, Any]) -> None:
    files = [*([package["sdist"]] if "sdist" in package else ()), *package.get("wheels", ())]
    own = tomllib.loads(file.with_name("pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
    if package["name"] == own:
        assert package["source"] in ({"editable": "."}, {"virtual": "."})
        assert files == []
        return
    # From a registry, and so from files: no repository, path or address of its own.
    assert package["source"].keys() == {"registry"}
    assert files
    for item in files:
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", item["hash"])


def test_everything_that_the_project_names_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    named = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    names = {re.split(r"[\[<>=~! ;]", item)[0].lower().replace("_", "-") for item in named}
    assert names <= {package["name"] for package in LOCK["package"]}


def test_every_test_that_security_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    assert len(named) > 20
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not (ROOT / file).exists() or f"def {test}(" not in (ROOT / file).read_text(encoding="utf-8")
    ]
    assert missing == []
