"""What a command imports: no more than it needs, and the list of commands says the same as the commands."""

import json
import subprocess
import sys
from importlib.metadata import version
from inspect import cleandoc

import pytest

from modelyard.cli.lazy import COMMANDS, load_command

RUN = """
import json, sys
from modelyard.cli.main import app
try:
    app(sys.argv[1:])
except SystemExit as end:
    print(json.dumps({"code": end.code, "modules": sorted(sys.modules)}), file=sys.stderr)
"""

CLUSTER = {"kopf", "kubernetes", "aiohttp", "grpc"}
"""What speaks to a cluster or to Envoy."""
NUMBERS = {"numpy", "scipy", "numba", "highspy", "matplotlib"}
HUB = {"huggingface_hub", "httpx2"}
LOCAL = "examples/llama-3.1-8b.yaml"


def imported(*arguments: str) -> tuple[str, set[str]]:
    """Run a command in a process of its own. Returns its output, and the packages that it imported."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments], capture_output=True, text=True, timeout=300, check=True
    )
    told = json.loads(done.stderr.splitlines()[-1])
    assert told["code"] in (0, None), done.stderr
    return done.stdout or done.stderr, {name.partition(".")[0] for name in told["modules"]} | set(
        told["modules"]
    )


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (("--help",), CLUSTER | NUMBERS | HUB | {"modelyard.api"}),
        (("--version",), CLUSTER | NUMBERS | HUB | {"modelyard.api"}),
        (("version",), CLUSTER | NUMBERS | HUB | {"modelyard.api"}),
        (("bootstrap",), CLUSTER | NUMBERS | HUB),
        (("validate", LOCAL), CLUSTER | NUMBERS | HUB),
        (("plan", "-f", LOCAL, "--offline"), CLUSTER | HUB | {"matplotlib", "numba"}),
        (("status", "--help"), {"kopf", "grpc"} | NUMBERS | HUB),
        (("cost", "--help"), {"kopf", "grpc"} | NUMBERS | HUB),
        (("logs", "--help"), {"kopf", "grpc"} | NUMBERS | HUB),
        (("simulate", "--help"), CLUSTER | HUB | {"matplotlib", "numba"}),
    ],
    ids=lambda item: " ".join(item) if isinstance(item, tuple) else "",
)
def test_what_is_not_needed_is_not_imported(arguments, unwanted):
    output, modules = imported(*arguments)
    assert output
    assert not unwanted & modules


def test_help_lists_every_command_with_its_help(monkeypatch):
    output, _ = imported("--help")
    shown = " ".join(output.replace("\u2502", " ").split())
    for name, lazy in COMMANDS.items():
        assert name in shown
        assert " ".join(lazy.help.split()) in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_what_the_command_says(name):
    first, _, _ = cleandoc(load_command(name).help).partition("\n\n")
    assert " ".join(first.split()) == COMMANDS[name].help


@pytest.mark.parametrize("arguments", [("--version",), ("version",)])
def test_the_version_is_that_of_the_package(arguments):
    assert imported(*arguments)[0].strip() == version("modelyard")


def test_a_command_with_a_slip_of_the_pen_is_suggested():
    done = subprocess.run(
        [sys.executable, "-m", "modelyard.cli", "statsu"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 2
    assert "status" in done.stderr
