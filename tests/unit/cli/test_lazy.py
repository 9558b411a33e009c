"""What a command imports: no more than it needs, and the list of commands says the same as the commands."""

import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from inspect import cleandoc
from itertools import pairwise

import pytest

from modelyard.cli.lazy import COMMANDS, load_command

RUN = """
import io, json, runpy, sys
from contextlib import redirect_stderr, redirect_stdout

found = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["modelyard", *arguments]
    with redirect_stdout(io.StringIO()) as output, redirect_stderr(io.StringIO()) as errors:
        try:
            runpy.run_module("modelyard.cli", run_name="__main__")
            code = None
        except SystemExit as end:
            code = end.code
    found.append([code, output.getvalue(), errors.getvalue(), sorted(sys.modules)])
print(json.dumps(found))
"""
"""Runs commands one after the other, and says after each what is imported."""

CLUSTER = {"kopf", "kubernetes", "aiohttp", "grpc"}
"""What speaks to a cluster or to Envoy."""
NUMBERS = {"numpy", "scipy", "numba", "highspy", "matplotlib"}
HUB = {"huggingface_hub", "httpx2"}
LOCAL = "examples/llama-3.1-8b.yaml"

SLIP = ("statsu",)
ALONE = {
    ("--version",): CLUSTER | NUMBERS | HUB | {"modelyard.api"},
    ("version",): CLUSTER | NUMBERS | HUB | {"modelyard.api"},
    ("--help",): CLUSTER | NUMBERS | HUB | {"modelyard.api"},
    SLIP: CLUSTER | NUMBERS | HUB | {"modelyard.api"},
    ("bootstrap",): CLUSTER | NUMBERS | HUB,
    ("validate", LOCAL): CLUSTER | NUMBERS | HUB,
    ("simulate", "--help"): CLUSTER | HUB | {"matplotlib", "numba"},
    ("plan", "-f", LOCAL, "--offline"): CLUSTER | HUB | {"matplotlib", "numba"},
}
"""Commands that ask no cluster, and what each must not import."""
ASKING = {
    ("status", "--help"): {"kopf", "grpc"} | NUMBERS | HUB,
    ("cost", "--help"): {"kopf", "grpc"} | NUMBERS | HUB,
    ("logs", "--help"): {"kopf", "grpc"} | NUMBERS | HUB,
}
"""The same of those that ask one."""
PROCESSES = (ALONE, ASKING)
"""Commands that share a process, in their order. Each may import what the one before it may: what is there after it and
unwanted came with it, or with one before it that must not import it either."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command did."""

    code: int | None
    output: str
    errors: str
    imported: frozenset[str]
    """Modules, and the packages that they are in."""


@pytest.fixture(scope="module")
def outcomes() -> dict[tuple[str, ...], Outcome]:
    """Run all commands."""
    found = {}
    for commands in PROCESSES:
        asked = json.dumps(list(commands))
        done = subprocess.run(
            [sys.executable, "-c", RUN, asked], capture_output=True, text=True, timeout=300, check=True
        )
        for arguments, (code, output, errors, modules) in zip(commands, json.loads(done.stdout), strict=True):
            packages = {name.partition(".")[0] for name in modules}
            found[arguments] = Outcome(code, output, errors, frozenset(modules) | packages)
    return found


@pytest.mark.parametrize("commands", PROCESSES)
def test_commands_that_share_a_process_stand_in_an_order_that_blames_the_right_one(commands):
    unwanted = list(commands.values())
    assert all(later <= earlier for earlier, later in pairwise(unwanted))


@pytest.mark.parametrize("arguments", [*ALONE, *ASKING], ids=" ".join)
def test_what_is_not_needed_is_not_imported(outcomes, arguments):
    done = outcomes[arguments]
    assert done.code in ((2,) if arguments == SLIP else (0, None)), done.errors
    assert done.output or done.errors
    assert not (ALONE | ASKING)[arguments] & done.imported


def test_help_lists_every_command_with_its_help(outcomes):
    shown = " ".join(outcomes["--help",].output.replace("\u2502", " ").split())
    for name, lazy in COMMANDS.items():
        assert name in shown
        assert " ".join(lazy.help.split()) in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_what_the_command_says(name):
    first, _, _ = cleandoc(load_command(name).help).partition("\n\n")
    assert " ".join(first.split()) == COMMANDS[name].help


@pytest.mark.parametrize("arguments", [("--version",), ("version",)])
def test_the_version_is_that_of_the_package(outcomes, arguments):
    assert outcomes[arguments].output.strip() == version("modelyard")


def test_a_command_with_a_slip_of_the_pen_is_suggested(outcomes):
    done = outcomes[SLIP]
    assert done.code == 2
    assert "status" in done.errors
