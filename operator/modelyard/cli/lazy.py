"""Commands that are imported when they are run: the operator's libraries alone take longer than most commands."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """Where a command is, and what the list of all commands says of it."""

    module: str
    """In `modelyard.cli`. Its `HELP`, if it has one, is the command's help, else the function's docstring."""
    function: str
    help: str
    """First paragraph of that help."""


COMMANDS = {
    "operator": LazyCommand(
        "operator",
        "operator",
        "Run the operator: watch LLMDeployments, run their engines, scale them and tell Envoy where requests go.",
    ),
    "validate": LazyCommand(
        "validate",
        "validate_files",
        "Check manifests as the API server would, without a cluster. Exits 2 if one would be refused.",
    ),
    "plan": LazyCommand(
        "plan",
        "plan",
        "Say what manifests mean before they are applied: fit, accelerator, replicas, cost, and what changes.",
    ),
    "simulate": LazyCommand(
        "simulate",
        "simulate",
        "Play recorded traffic against manifests: attainment, cost, cold starts, replicas, and why.",
    ),
    "status": LazyCommand(
        "status",
        "status",
        "Say how the installation is: deployments, routes, budgets, accelerators, operator. Trouble comes first.",
    ),
    "explain": LazyCommand(
        "explain",
        "explain",
        "Say why a deployment has its size, or a route its target: the last decision, its numbers, and those before "
        "it.",
    ),
    "logs": LazyCommand(
        "logs",
        "logs",
        "Write the logs of all pods of a deployment, each line with the pod that it comes from.",
    ),
    "cost": LazyCommand(
        "cost", "cost", "Say what was used and spent: by tenant, route, deployment or namespace."
    ),
    "bootstrap": LazyCommand(
        "bootstrap",
        "write_bootstrap",
        "Write the static configuration of an Envoy of the gateway, for `envoy --config-path`.",
    ),
}
"""By name, in the order of the list."""


def load_command(name: str) -> Any:
    """Return a command with its options, for Typer."""
    lazy = COMMANDS[name]
    module = import_module(f"modelyard.cli.{lazy.module}")
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command(name=name, help=getattr(module, "HELP", None))(getattr(module, lazy.function))
    return get_command(alone)


class LazyGroup(TyperGroup):
    """A group whose commands stand in for themselves, with their help, until one of them is run or completed."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command that the arguments name, loaded, and the arguments after it."""
        if args and args[0] in COMMANDS:
            self.commands[args[0]] = load_command(args[0])
        return super().resolve_command(ctx, args)
