"""The `modelyard` command. A command's module is imported when that command is run, and not before."""

from importlib.metadata import version as package_version
from typing import Annotated

import typer

from modelyard.cli.lazy import COMMANDS, LazyGroup

app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Run fleets of open LLMs on your own GPUs. `modelyard operator` runs in the cluster; "
    "`modelyard validate` checks manifests before they get there, and `modelyard plan` says what they mean: fit, "
    "accelerators, replicas and cost. `modelyard simulate` plays traffic against them. `modelyard status` says how the "
    "installation is, `modelyard explain` why a deployment has the size that it has, `modelyard logs` what its engines "
    "say, and `modelyard cost` what was used and spent, and by whom.",
)


def _stand_in() -> None:
    """Hold the place of a command in the list: `LazyGroup` puts the command itself here before it is run."""
    raise RuntimeError("LazyGroup did not load the command")


for _name, _lazy in COMMANDS.items():
    app.command(name=_name, help=_lazy.help)(_stand_in)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(package_version("modelyard"))


def _print_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def _options(
    _wanted: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Take the options that stand before the command."""
