"""The image's files agree with the project's: a change of one that forgets the other shows before a build."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.package.support import REPOSITORY


def locked(name: str) -> dict[str, str]:
    """Return the version of each package that a file of `dev/image` locks."""
    text = (REPOSITORY / "dev/image" / name).read_text()
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))


def instructions() -> list[str]:
    """Return the Dockerfile's instructions, continued lines joined, comments left out."""
    lines = (REPOSITORY / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    return [line for line in text.replace("\\\n", " ").splitlines() if line]


def test_image_is_installed_by_the_projects_uv():
    assert locked("uv.txt").keys() == {"uv"}
    makefile = (REPOSITORY / "Makefile").read_text().replace("\\\n", " ")
    (line,) = (line for line in makefile.splitlines() if ".tools/uv/bin/pip install" in line)
    assert "--require-hashes" in line.split()
    assert line.split()[-2:] == ["--requirement", "dev/image/uv.txt"]


def test_wheel_is_built_by_what_the_project_asks_for():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    (requirement,) = project["build-system"]["requires"]
    name, least = requirement.split(">=")
    assert [int(part) for part in locked("build.txt")[name].split(".")][:2] >= [
        int(part) for part in least.split(".")
    ]


@pytest.mark.parametrize("name", ["uv.txt", "build.txt"])
def test_every_package_has_hashes(name: str):
    text = (REPOSITORY / "dev/image" / name).read_text()
    blocks = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert blocks
    assert all("--hash=sha256:" in block for block in blocks)


def test_image_needs_no_shell_and_no_root():
    """A string instead of a list would be run by a shell, and a name could not be checked by the kubelet."""
    found = instructions()
    assert all(
        line.split(maxsplit=1)[1].startswith("[") for line in found if line.startswith(("RUN", "ENTRY"))
    )
    assert [line for line in found if line.startswith("USER")] == ["USER 65532:65532"]


def test_what_is_copied_may_be_copied():
    """`.dockerignore` lists what goes in: every source of a COPY must be on it."""
    allowed = {
        line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    copies = [
        line.split()[1:-1] for line in instructions() if line.startswith("COPY") and "--from" not in line
    ]
    assert copies
    for source in (name for names in copies for name in names):
        assert (REPOSITORY / source).exists()
        assert any(Path(source).is_relative_to(entry) for entry in allowed), source
