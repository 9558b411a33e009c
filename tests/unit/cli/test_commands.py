"""The command line: what it prints, and the exit codes that pipelines act on."""

import datetime as dt
import json
import re
import subprocess

import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from dev.envoy.binary import envoy_binary
from modelyard.cli.lazy import COMMANDS as LAZY
from modelyard.cli.lazy import load_command
from modelyard.cli.main import app
from modelyard.cli.validate import INVALID
from modelyard.gateway.authority import renew


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


COMMANDS = get_command(app).commands


def test_help_names_every_command():
    shown = run("--help").output
    assert all(command in shown for command in COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_with_all_its_options(name, monkeypatch):
    """Texts are Rich's markup there: a bracket in one of them can end the command instead of showing it."""
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 200)
    shown = run(name, "--help")
    assert shown.exit_code == 0, shown.exception
    command = load_command(name) if name in LAZY else COMMANDS[name]
    for parameter in command.params:
        if parameter.param_type_name == "option":
            assert max(parameter.opts, key=len) in shown.output


def test_envoy_accepts_the_bootstrap(tmp_path):
    result = run("bootstrap", "--xds-address", "127.0.0.1:19000", "--node-id", "a")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["node"]["id"] == "a"
    file = tmp_path / "envoy.json"
    file.write_text(result.stdout)
    checked = subprocess.run(
        [envoy_binary(), "--mode", "validate", "--config-path", file],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert checked.returncode == 0, checked.stderr


def test_envoy_accepts_the_bootstrap_with_tls_to_the_operator(tmp_path):
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    _, client = renew(None, None, "xds.example", dt.datetime.now(dt.UTC))
    for name, content in client.data().items():
        (mounted / name).write_bytes(content)
    file = tmp_path / "envoy.json"
    result = run("bootstrap", "--xds-address", "127.0.0.1:19000", "--node-id", "a", "--output", file,
                 "--xds-tls", mounted, "--xds-server-name", "xds.example")  # fmt: skip
    assert (result.exit_code, result.stdout) == (0, "")
    beside = {path.name for path in tmp_path.iterdir()} - {"mounted"}
    assert beside == {"envoy.json", "xds-authority.json", "xds-certificate.json"}
    for path in beside:
        assert client.key not in (tmp_path / path).read_text()
    checked = subprocess.run(
        [envoy_binary(), "--mode", "validate", "--config-path", file],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert checked.returncode == 0, checked.stderr


def test_tls_to_the_operator_needs_a_file_to_write_beside():
    result = run("bootstrap", "--xds-tls", "/etc/modelyard/xds")
    assert result.exit_code == 2
    assert "--output" in re.sub(r"\x1b\[[0-9;]*m", "", result.output)


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1", "127.0.0.1:99999", ":1"])
def test_a_bad_address_names_its_option(address):
    result = run("bootstrap", "--xds-address", address)
    assert result.exit_code == 2
    assert "--xds-address" in re.sub(r"\x1b\[[0-9;]*m", "", result.output)


def test_validate_accepts_the_examples():
    result = run("validate", "examples")
    assert (result.exit_code, "0 problems" in result.output) == (0, True)


def test_validate_names_the_field_and_skips_other_groups(tmp_path):
    bad = {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": "a"},
        "spec": {"model": {"source": "hf://a/b"}, "placement": {"accelerators": [{"class": "c"}]}},
    }
    other = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump_all([bad, other]))
    result = run("validate", tmp_path)
    assert result.exit_code == INVALID
    assert "replicas" in result.output
    assert "ConfigMap skipped" in result.output


def test_validate_says_what_is_no_yaml(tmp_path):
    (tmp_path / "a.yml").write_text("a: [1")
    result = run("validate", tmp_path)
    assert result.exit_code == INVALID
    assert "a.yml: Error: not YAML" in result.output
