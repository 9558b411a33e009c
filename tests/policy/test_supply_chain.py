"""What is installed is what was locked, and what SECURITY.md promises has a test."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LOCK: dict[str, Any] = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))


@pytest.mark.parametrize("package", LOCK["package"], ids=lambda package: package["name"])
def test_every_file_of_the_lock_has_a_hash(package: dict[str, Any]) -> None:
    files = [*([package["sdist"]] if "sdist" in package else ()), *package.get("wheels", ())]
    if package["name"] == "modelyard":
        assert package["source"] == {"editable": "."}
        assert files == []
        return
    # From a registry, and so from files: no repository, path or address of its own.
    assert package["source"].keys() == {"registry"}
    assert files
    for file in files:
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", file["hash"])


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
