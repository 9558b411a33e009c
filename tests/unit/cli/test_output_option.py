"""`-o` means the same in every command that writes a report."""

from importlib import import_module
from inspect import signature

import pytest
from typer.testing import CliRunner

from modelyard.cli.lazy import COMMANDS
from modelyard.cli.main import app

REPORTING = ("cost", "explain", "plan", "simulate", "status", "validate")


def parameters(name):
    command = COMMANDS[name]
    return signature(getattr(import_module(f"modelyard.cli.{command.module}"), command.function)).parameters


def test_these_are_all_that_have_it():
    found = {name for name in COMMANDS if "output" in parameters(name)}
    # The configuration of an Envoy is no report: there it is a file.
    assert found - {"bootstrap"} == set(REPORTING)


@pytest.mark.parametrize("name", REPORTING)
def test_a_report_is_a_table_unless_it_is_asked_for_as_data(name):
    default = parameters(name)["output"].default
    assert default == "table"
    assert {"table", "json", "yaml"} <= set(type(default))
    refused = CliRunner().invoke(app, [name, "-o", "words"])
    assert refused.exit_code == 2
    assert "one of 'table', " in " ".join(refused.output.replace("│", " ").split())
