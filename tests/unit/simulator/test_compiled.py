"""Kept machine code comes from the sources as they are now, also from those that are compiled into others."""

import ast
import importlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numba
import pytest

from modelyard.simulator import compiled

PACKAGE = Path(compiled.__file__).parent
TREES = {path.name: ast.parse(path.read_text()) for path in sorted(PACKAGE.glob("*.py"))}
GROUPS = {"compiled": compiled.ENGINE, "compiled_flow": compiled.FLOW}
"""Sources by the name of the decorator."""


def functions() -> Iterator[tuple[str, str, ast.FunctionDef]]:
    """Return file, decorator and tree of each compiled function."""
    for file, tree in TREES.items():
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef):
                for decorator in map(ast.unparse, function.decorator_list):
                    if decorator in GROUPS or "njit" in decorator:
                        yield file, decorator, function


FUNCTIONS = list(functions())


def defined(file: str) -> tuple[dict[str, str], dict[str, ast.expr]]:
    """Return from which file of Modelyard each name of a file comes, and what is assigned to the file's own names."""
    imported: dict[str, str] = {}
    assigned: dict[str, ast.expr] = {}
    for part in TREES.get(file, ast.Module([], [])).body:
        if isinstance(part, ast.ImportFrom) and part.module and part.module.startswith("modelyard."):
            source = part.module.removeprefix("modelyard.simulator.").replace(".", "/") + ".py"
            imported |= {name.asname or name.name: source for name in part.names}
        elif isinstance(part, ast.Assign):
            names = [name.id for name in ast.walk(part.targets[0]) if isinstance(name, ast.Name)]
            assigned |= dict.fromkeys(names, part.value)
        elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) and part.value:
            assigned[part.target.id] = part.value
    return imported, assigned


def compiled_in(file: str, function: ast.FunctionDef) -> set[str]:
    """Return the files from which code or constants get into a function, its own among them.

    A constant may rest on others, and these may be another file's.
    """
    seen: set[tuple[str, str]] = set()
    files = {file}
    rest: list[tuple[str, ast.AST]] = [(file, part) for part in function.body]
    while rest:
        where, part = rest.pop()
        imported, assigned = defined(where)
        names = {name.id for name in ast.walk(part) if isinstance(name, ast.Name)}
        for name in names - {name for place, name in seen if place == where}:
            seen.add((where, name))
            if name in imported:
                files.add(imported[name])
                rest.append((imported[name], ast.Name(name)))
            elif name in assigned:
                rest.append((where, assigned[name]))
    return files


@pytest.mark.parametrize(
    ("file", "decorator", "function"), FUNCTIONS, ids=[f"{file}-{tree.name}" for file, _, tree in FUNCTIONS]
)
def test_all_that_is_compiled_in_is_looked_at(file: str, decorator: str, function: ast.FunctionDef) -> None:
    sources = compiled_in(file, function)
    # Numba itself looks at a function's own file.
    assert sources <= {file, *GROUPS.get(decorator, ())}


@pytest.mark.parametrize(("file", "function"), [("neighbours.py", "_course"), ("fleet.py", "route")])
def test_what_is_compiled_in_is_found(file: str, function: str) -> None:
    tree = next(tree for found, _, tree in FUNCTIONS if (found, tree.name) == (file, function))
    assert len(compiled_in(file, tree)) > 1


def test_a_group_is_kept_in_the_folder_of_its_version() -> None:
    for file, decorator, tree in FUNCTIONS:
        if decorator in GROUPS:
            function = getattr(importlib.import_module(f"modelyard.simulator.{Path(file).stem}"), tree.name)
            folder = compiled.cache_folder(GROUPS[decorator])
            assert folder is not None
            assert Path(function.stats.cache_path).parent == Path(folder)
    assert not numba.config.CACHE_DIR


@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
def test_a_change_of_any_source_is_another_version(group: tuple[str, ...], tmp_path: Path) -> None:
    for name in group:
        (tmp_path / name).write_bytes((PACKAGE / name).read_bytes())
    seen = {compiled.cache_folder(group, tmp_path)}
    assert seen == {compiled.cache_folder(group, tmp_path)}
    for name in group:
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes() + b"# changed\n")
        seen.add(compiled.cache_folder(group, tmp_path))
    assert len(seen) == len(group) + 1


def make_package(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "a.py").write_text(text)
    return folder


def aged(folder: Path, days: float) -> Path:
    folder.mkdir(parents=True)
    (folder / "code.nbi").touch()
    then = time.time() - days * 86400
    os.utime(folder, (then, then))
    return folder


def test_code_that_nobody_uses_any_more_is_removed_when_new_code_is_made(tmp_path):
    package = make_package(tmp_path / "package", "A = 1")
    kept = package / "__pycache__"
    old, recent, other = aged(kept / "simulator-1", 8), aged(kept / "simulator-2", 6), aged(kept / "x-1", 8)
    folder = Path(compiled.cache_folder(("a.py",), package))
    assert folder.parent == kept
    assert (old.exists(), recent.exists(), other.exists()) == (False, True, True)


def test_code_that_is_used_is_not_removed_however_long_ago_it_was_made(tmp_path):
    package = make_package(tmp_path / "package", "A = 1")
    used = aged(Path(compiled.cache_folder(("a.py",), package)), 30)
    assert Path(compiled.cache_folder(("a.py",), package)) == used
    make_package(package, "A = 2")
    assert Path(compiled.cache_folder(("a.py",), package)) != used
    assert (used / "code.nbi").exists()


def test_code_that_another_process_removes_meanwhile_is_no_error(tmp_path, monkeypatch):
    kept = tmp_path / "__pycache__"
    gone = aged(kept / "simulator-1", 8)

    def remove(folder, **_):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        raise FileNotFoundError(folder)

    monkeypatch.setattr(compiled.shutil, "rmtree", remove)
    compiled.remove_unused(kept, time.time())
    assert not gone.exists()
