"""Building the control plane's programs once: caching, locking, and errors that name the remedy.

A small program stands in for `go`: it logs its calls and writes the files that a build would.
"""

import re
import sys
import threading
from pathlib import Path

import pytest

from dev.cluster import binaries
from dev.cluster.binaries import HELM, BuildError, cache_key, ensure_binaries, ensure_module

FAKE_GO = """#!{python}
import os, pathlib, sys
arguments = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(" ".join(arguments) + "\\n")
if arguments[0] == "list":
    if {broken_list!r}:
        sys.exit({broken_list!r})
    print({kwok!r})
elif arguments[0] == "build":
    if {broken_build!r}:
        sys.exit({broken_build!r})
    target = arguments[arguments.index("-o") + 1]
    packages = arguments[arguments.index("-o") + 2:]
    names = [os.path.basename(p) for p in packages] if target.endswith("/") else [""]
    for name in names:
        pathlib.Path(target, name).write_text("a program")
"""


class FakeGo:
    """Writes the stand-in for `go` into a folder and reads what it was called for."""

    def __init__(self, folder: Path, *, broken_list: str = "", broken_build: str = "") -> None:
        self.folder = folder / "path"
        self.folder.mkdir()
        self.log = folder / "calls"
        kwok = folder / "kwok-sources"
        for stage in binaries.STAGE_FILES:
            (kwok / stage).parent.mkdir(parents=True, exist_ok=True)
            (kwok / stage).write_text(f"stage {stage}")
        program = self.folder / "go"
        program.write_text(
            FAKE_GO.format(
                python=sys.executable,
                log=str(self.log),
                kwok=str(kwok),
                broken_list=broken_list,
                broken_build=broken_build,
            )
        )
        program.chmod(0o755)

    def builds(self) -> int:
        """Return how many builds it was asked for."""
        return sum(line.startswith("build") for line in self.log.read_text().splitlines())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a PATH without any `go`."""
    monkeypatch.setenv("MODELYARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    return tmp_path / "cache"


def silent(line: str) -> None:
    """Hear progress and do nothing."""


def test_a_missing_go_is_reported_with_the_remedy(cache: Path) -> None:
    with pytest.raises(BuildError, match=re.escape("install Go (https://go.dev/dl/")):
        ensure_binaries(silent)


def test_a_go_that_is_too_old_is_reported_with_the_needed_version(cache: Path, tmp_path: Path) -> None:
    FakeGo(tmp_path, broken_list="go: go.mod requires go >= 1.26.0 (running go 1.22.1)")
    with pytest.raises(BuildError, match=r"(?s)running go 1\.22\.1.*Go 1\.26\.\d+ or later is needed"):
        ensure_binaries(silent)


def test_a_second_start_reuses_what_the_first_built(cache: Path, tmp_path: Path) -> None:
    go = FakeGo(tmp_path)
    lines: list[str] = []
    built = ensure_binaries(lines.append)
    assert built.folder == cache / "bin" / cache_key()
    assert [built.path(name).read_text() for name in ("etcd", "kwok", "kube-apiserver")] == ["a program"] * 3
    assert [stage.exists() for stage in built.stages] == [True] * 5
    assert any(line.startswith("built etcd in") for line in lines)

    lines.clear()
    assert ensure_binaries(lines.append) == built
    assert (lines, go.builds()) == ([], len(binaries.MODULES))


def test_two_starters_at_once_build_once(cache: Path, tmp_path: Path) -> None:
    go = FakeGo(tmp_path)
    found: list[binaries.Binaries] = []
    starters = [threading.Thread(target=lambda: found.append(ensure_binaries(silent))) for _ in range(4)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join()
    assert (len(found), len(set(found)), go.builds()) == (4, 1, len(binaries.MODULES))


def test_a_further_module_has_a_folder_of_its_own(cache: Path, tmp_path: Path) -> None:
    go = FakeGo(tmp_path)
    folder = ensure_module(HELM, silent)
    assert folder.name.startswith(f"helm-{HELM.version()}-")
    assert (folder / "helm").read_text() == "a program"
    assert (ensure_module(HELM, silent), go.builds()) == (folder, 1)


def test_a_failed_build_shows_its_output_and_leaves_nothing_half_done(cache: Path, tmp_path: Path) -> None:
    FakeGo(tmp_path, broken_build="undefined: somewhere")
    with pytest.raises(BuildError, match=r"(?s)building etcd failed.*undefined: somewhere"):
        ensure_binaries(silent)
    assert [path.name for path in (cache / "bin").iterdir()] == [f".{cache_key()}.lock"]


def test_the_key_names_the_versions_and_changes_with_the_module_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = cache_key()
    assert re.fullmatch(r"etcd-[\d.]+-kwok-[\d.]+-kubernetes-1\.[\d.]+-[0-9a-f]{12}", key)
    copy = tmp_path / "tools"
    for module in binaries.MODULES:
        (copy / module.folder).mkdir(parents=True)
        for name in ("go.mod", "go.sum"):
            (copy / module.folder / name).write_bytes((module.path / name).read_bytes())
    monkeypatch.setattr(binaries, "TOOLS", copy)
    assert cache_key() == key
    with (copy / "kwok" / "go.sum").open("a") as file:
        file.write("example.com/new v1.0.0 h1:x\n")
    assert cache_key() != key


def test_the_cache_stands_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODELYARD_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert binaries.cache_folder() == Path("/somewhere/modelyard")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert binaries.cache_folder() == Path("/home/someone/.cache/modelyard")
    monkeypatch.setenv("MODELYARD_CACHE", "/mine")
    assert binaries.cache_folder() == Path("/mine")
