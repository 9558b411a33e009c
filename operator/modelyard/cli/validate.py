"""`modelyard validate`: the API server's verdict without a cluster."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
import yaml

from modelyard.api.meta import wire
from modelyard.cli.manifests import Reading, read_files
from modelyard.core.report.model import EXIT_CODES

INVALID = EXIT_CODES["Invalid"]
"""Exit code for manifests that the API server would refuse."""


class ValidateFormat(StrEnum):
    """How the result is written."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def validate_files(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Files or folders with manifests; - is standard input."),
    ],
    output: Annotated[
        ValidateFormat,
        typer.Option("--output", "-o", help="table: a line for each problem, on standard error."),
    ] = ValidateFormat.TABLE,
) -> None:
    """Check manifests as the API server would, without a cluster. Exits 2 if one would be refused.

    Checked are schema, bounds and the rules across fields, and that no object stands there twice. Lists are unfolded;
    objects of other API groups are skipped with a note, and so are folders named `invalid` inside those given.

      modelyard validate manifests/

      helm template chart | modelyard validate -
    """
    reading = read_files(paths)
    for note in reading.notes:
        typer.echo(note, err=True)
    for line in _lines(reading):
        typer.echo(line, err=True)
    errors = sum(problem.severity == "Error" for problem in reading.problems)
    typer.echo(f"{reading.checked} checked, {errors} problems", err=True)
    if output is not ValidateFormat.TABLE:
        document = {
            "version": "1",
            "valid": not errors,
            "checked": reading.checked,
            "problems": [wire(problem) for problem in reading.problems],
            "notes": reading.notes,
        }
        as_json = output is ValidateFormat.JSON
        text = (
            json.dumps(document, indent=2, ensure_ascii=False)
            if as_json
            else yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
        )
        typer.echo(text.rstrip("\n"))
    if errors:
        raise typer.Exit(INVALID)


def _lines(reading: Reading) -> list[str]:
    return [
        ": ".join(part for part in (item.file, item.severity, item.object, item.field, item.message) if part)
        for item in reading.problems
    ]
