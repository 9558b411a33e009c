"""The `modelyard` command."""

import sys
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console

from modelyard.api.meta import GROUP
from modelyard.api.validation import validate
from modelyard.runtime.__main__ import operator as run_operator

app = typer.Typer(
    no_args_is_help=True,
    help="Run fleets of open LLMs on your own GPUs. `modelyard operator` runs in the cluster; "
    "`modelyard validate` checks manifests before they get there.",
)
app.command(name="operator")(run_operator)

INVALID = 2
"""Exit code for manifests that the API server would refuse."""


@app.command(name="validate")
def validate_files(
    paths: Annotated[list[Path], typer.Argument(help="Files or folders with YAML manifests.", exists=True)],
) -> None:
    """Check manifests as the API server would, without a cluster. Exits 2 if one would be refused."""
    console = Console(stderr=True, highlight=False)
    refused = checked = 0
    for path in paths:
        files = sorted(path.rglob("*.yaml")) if path.is_dir() else [path]
        for file in files:
            for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
                if not isinstance(document, dict):
                    continue
                if not str(document.get("apiVersion", "")).startswith(f"{GROUP}/"):
                    console.print(f"{file}: {document.get('kind', 'document')} skipped: not of {GROUP}")
                    continue
                checked += 1
                for problem in validate(document):
                    console.print(f"{file}: {problem.severity}: {problem.field}: {problem.message}")
                    refused += problem.severity == "Error"
    console.print(f"{checked} checked, {refused} problems")
    if refused:
        sys.exit(INVALID)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(package_version("modelyard"))
