"""What the documents name is there: files, headings, make's targets, modules, and the command line with its options."""

import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from modelyard.cli.lazy import COMMANDS, load_command

ROOT = Path(__file__).parents[2]
OUTPUTS = "tests/unit/cli"
"""Golden outputs of `modelyard plan` and `simulate`, which no reader follows."""
FOLDERS = (
    "operator",
    "docs",
    "tests",
    "dev",
    "charts",
    "examples",
    "benchmarks",
    "policies",
    "deploy",
    "crds",
)
"""Inline code that begins with one of them is a path from the root; with one of Modelyard's packages, from there."""
PACKAGE = ROOT / "operator" / "modelyard"
PACKAGES = tuple(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())


def documents() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    return [name for name in listed.split("\0") if name and not name.startswith(OUTPUTS)]


DOCUMENTS = documents()


@cache
def tokens(file: Path) -> tuple[Token, ...]:
    """Return all tokens of a document, those within paragraphs behind the paragraph's own."""
    blocks = MarkdownIt("commonmark").enable("table").parse(file.read_text(encoding="utf-8"))
    return tuple(token for block in blocks for token in (block, *(block.children or ())))


@cache
def anchors(file: Path) -> frozenset[str]:
    """Return what links to headings end with, as GitHub makes it: the second heading of a name gets a number."""
    seen: Counter[str] = Counter()
    found = set()
    for opening, content in pairwise(tokens(file)):
        if opening.type == "heading_open":
            text = "".join(
                part.content for part in content.children or () if part.type in {"text", "code_inline"}
            )
            name = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            found.add(f"{name}-{seen[name]}" if seen[name] else name)
            seen[name] += 1
    return frozenset(found)


def links(name: str) -> Iterator[str]:
    for token in tokens(ROOT / name):
        if token.type in {"link_open", "image"}:
            target = str(token.attrs.get("href") or token.attrs.get("src"))
            if not re.match(r"[a-z]+:", target):
                yield target


def commands(name: str) -> Iterator[list[str]]:
    """Return the words of each command of a document: those of console blocks, and inline code."""
    for token in tokens(ROOT / name):
        if token.type == "code_inline":
            lines = [token.content]
        elif token.type == "fence" and token.info == "console":
            whole = token.content.replace("\\\n", " ").splitlines()
            lines = [line.removeprefix("$ ") for line in whole if line.startswith("$ ")]
        else:
            continue
        for line in lines:
            words = line.split() if token.type == "code_inline" else shlex.split(line, comments=True)
            if words:
                yield words


def calls(name: str, program: str) -> Iterator[list[str]]:
    """Return the arguments of each call of a program."""
    for words in commands(name):
        while words and (words[0] == "sudo" or "=" in words[0]):
            words = words[1:]
        if words and Path(words[0]).name == program:
            yield words[1:]


def missing_link(name: str, link: str) -> bool:
    path, _, anchor = link.partition("#")
    file = (ROOT / name).parent / path if path else ROOT / name
    return not file.exists() or (bool(anchor) and anchor not in anchors(file))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    assert [link for link in links(name) if missing_link(name, link)] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_paths_exist(name: str) -> None:
    gone = []
    for token in tokens(ROOT / name):
        found = re.fullmatch(r"([\w-]+)/[\w./-]*", token.content.partition("::")[0])
        if token.type != "code_inline" or found is None:
            continue
        if found[1] in FOLDERS + PACKAGES:
            folders = (ROOT, PACKAGE, (ROOT / name).parent)
            if not any((folder / found[0]).exists() for folder in folders):
                gone.append(found[0])
    assert gone == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_targets_of_make_exist(name: str) -> None:
    targets = set(
        re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    named = {words[0] for words in calls(name, "make") if words and "=" not in words[0]}
    assert named <= targets


@pytest.mark.parametrize("name", DOCUMENTS)
def test_modules_exist(name: str) -> None:
    for words in calls(name, "python"):
        if words[:1] == ["-m"]:
            module = Path(*words[1].split("."))
            places = [folder / module for folder in (ROOT, ROOT / "operator")]
            assert any(place.is_dir() or place.with_suffix(".py").exists() for place in places), words[1]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_and_their_options_exist(name: str) -> None:
    for words in calls(name, "modelyard"):
        if not words or words[0] in {"version", "--version", "--help"} or not re.match(r"[a-z]", words[0]):
            continue
        assert words[0] in COMMANDS
        options = {
            option for param in load_command(words[0]).params for option in param.opts + param.secondary_opts
        }
        given = {word.partition("=")[0] for word in words[1:] if re.match(r"--?[a-z]", word)}
        assert given <= options | {"--help"}


def test_there_is_something_to_look_at() -> None:
    """Each of the tests above sees what it is meant to see."""
    assert sum(len(list(links(name))) for name in DOCUMENTS) > 150
    assert sum("#" in link for name in DOCUMENTS for link in links(name)) > 50
    counts = {
        program: sum(len(list(calls(name, program))) for name in DOCUMENTS)
        for program in ("make", "modelyard")
    }
    assert min(counts.values()) > 20
    assert "reason-codes" in anchors(ROOT / "docs" / "decisions.md")
