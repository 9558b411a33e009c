"""The wheel, built once, and an environment that has nothing but it and what it depends on."""

import sys
from pathlib import Path

import pytest

from tests.package.support import run, uv


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as the image builds it: by the locked hatchling."""
    folder = tmp_path_factory.mktemp("wheel")
    run(
        *(uv(), "build", "--wheel", "--quiet", "--out-dir", folder),
        *("--build-constraints", "dev/image/build.txt", "--require-hashes"),
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a new environment with the wheel and its locked dependencies."""
    folder = tmp_path_factory.mktemp("environment")
    environment = folder / "venv"
    requirements = folder / "requirements.txt"
    run(uv(), "venv", "--quiet", "--python", sys.executable, environment)
    run(
        *(
            uv(),
            "export",
            "--quiet",
            "--frozen",
            "--no-dev",
            "--no-emit-project",
            "--output-file",
            requirements,
        )
    )
    install = (uv(), "pip", "install", "--quiet", "--python", environment)
    run(*install, "--require-hashes", "--requirement", requirements)
    run(*install, "--no-deps", wheel)
    return environment / "bin"
