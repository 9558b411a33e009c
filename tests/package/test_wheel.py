"""What people install is whole: the wheel has every file, and the programs in it run away from the repository."""

import json
import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.package.support import REPOSITORY, run

EXAMPLE = [
    part
    for name in ("llama-3.1-8b.yaml", "accelerator-classes.yaml")
    for part in ("-f", str(REPOSITORY / "examples" / name))
]
"""Options that name a deployment and the accelerators that it runs on."""


def test_wheel_has_every_file_of_the_package(wheel: Path):
    tracked = run("git", "ls-files", "--", "operator/modelyard").splitlines()
    files = {Path(name).relative_to("operator").as_posix() for name in tracked}
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert {Path(name).suffix for name in files} >= {".py", ".yaml", ".lua", ".gz", ".html"}
    assert inside == files


@pytest.mark.parametrize("program", ["modelyard", "kubectl-modelyard"])
def test_programs_run_without_the_repository(programs: Path, tmp_path: Path, program: str):
    """`--help` imports every command, so a module or dependency that is missing shows here."""
    help_text = call(programs, tmp_path, program, "--help").stdout
    for command in ("operator", "bootstrap", "plan", "validate", "simulate", "explain", "cost"):
        assert f" {command} " in help_text


def test_catalogue_is_in_the_wheel(programs: Path, tmp_path: Path):
    assert "result: ok" in call(programs, tmp_path, "modelyard", "plan", *EXAMPLE).stdout


def test_simulation_writes_its_page(programs: Path, tmp_path: Path):
    """The page's template is there, and so is what compiles and draws."""
    options = ("--synthetic", "poisson:rate=1,minutes=5", "--report", str(tmp_path / "report"))
    call(programs, tmp_path, "modelyard", "simulate", *EXAMPLE, *options)
    assert list((tmp_path / "report").glob("*.html"))


def test_bootstrap_needs_no_cluster(programs: Path, tmp_path: Path):
    printed = call(programs, tmp_path, "modelyard", "bootstrap").stdout
    assert json.loads(printed)["dynamic_resources"]["ads_config"]["api_type"] == "DELTA_GRPC"


def call(programs: Path, folder: Path, program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run an installed program in a folder of its own, with nothing of this repository on its path."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"HOME": str(folder), "COLUMNS": "200", "NO_COLOR": "1"}
    done = subprocess.run(
        [programs / program, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done
