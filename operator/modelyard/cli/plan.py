"""`modelyard plan`: what manifests mean before they are applied."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli.gather import LIVE, PlanOptions, build_question
from modelyard.cli.kubeconfig import Context, Kubeconfig
from modelyard.cli.manifests import InputError, read_files
from modelyard.cli.options import Files, ObjectNamespace
from modelyard.cli.planformat import PlanFormat, format_plan
from modelyard.core.report.build import build_report
from modelyard.core.report.model import EXIT_CODES, PlanReport
from modelyard.kube.errors import ApiError

HELP = """Say what manifests mean before they are applied: fit, accelerator, replicas, cost, and what changes.

It runs the code that decides in the cluster, and needs neither cluster nor GPU.

\b
Standard output carries the report only; notes and problems go to standard error as well.

\b
Exit codes, the first that applies:
  2  a manifest or an option is invalid
  3  a deployment does not fit, is refused, or lacks room for replicas (with --against)
  4  the total is over --budget
  0  none of these (and 1: the cluster could not be read)

\b
Examples:
  modelyard plan -f manifests/
  modelyard plan -f manifests/ --against live --budget 500
  modelyard plan -f manifests/ --against inventory.yaml -o markdown > comment.md
  modelyard plan -f llama.yaml --load recorded.csv -o json | jq .totals.perDay
  modelyard plan -f llama.yaml --model-folder pvc://weights/tune=./tune
  helm template chart | modelyard plan -f - --offline

\b
Load       spec.load.requestsPerMinute, or the row of --load; without either a
           deployment has the size of scaling.min or replicas, or as it runs now.
Classes    from the files, else from --against, else the catalogue's by name.
Models     from the spec, the catalogue, a folder of --model-folder, or the model hub
           (HF_TOKEN is sent to it).

docs/plan.md has the schema of json and yaml, and a worked example.
"""

USAGE = EXIT_CODES["Invalid"]


def plan(
    files: Files,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="live|FILE",
            help="What to compare with, and whose nodes count: the cluster, only read, or an inventory file.",
        ),
    ] = None,
    output: Annotated[
        PlanFormat,
        typer.Option("--output", "-o", help="markdown is made for a comment on a pull request."),
    ] = PlanFormat.TABLE,
    load: Annotated[
        Path | None,
        typer.Option(
            help="Recorded load: CSV, YAML or JSON rows of deployment, requestsPerMinute, inputTokens, outputTokens.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="USD_PER_DAY", help="Exit 4 if the total, what stays included, is above this."),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask no model hub: other models have fit unknown.")
    ] = False,
    model_folder: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE=PATH",
            help="Folder with config.json and *.safetensors of the model whose model.source is SOURCE; may be given "
            "several times.",
        ),
    ] = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: ObjectNamespace = "default",
    prices: Annotated[
        Path | None,
        typer.Option(
            help="Your own prices of APIs: CSV, YAML or JSON rows of provider, model, inputPerMillion, "
            "outputPerMillion, source, date and, optionally, deployment.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune",
            help="With --against: what runs and is in none of the files is removed, as Argo CD prunes.",
        ),
    ] = False,
) -> None:
    """Say what manifests mean before they are applied."""
    options = PlanOptions(
        namespace=namespace,
        against=_check_against(against),
        kubeconfig=kubeconfig,
        context=context,
        load=load,
        prices=prices,
        budget=_parse_budget(budget),
        offline=offline,
        prune=prune,
        model_folders=_parse_folders(model_folder or []),
    )
    reading = read_files(files, namespace)
    try:
        question = build_question(reading, options)
        with silence_solver():
            report = build_report(question)
    except InputError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(USAGE) from error
    except ApiError as error:
        typer.echo(f"Error: the cluster cannot be read: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(format_plan(report, output).rstrip("\n"))
    for line in _lines(report):
        typer.echo(line, err=True)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


@contextmanager
def silence_solver() -> Iterator[None]:
    """Keep the banner of HiGHS out of the report: its first instance prints one on descriptor 1, whatever is set."""
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(nowhere)
        os.close(kept)


def _lines(report: PlanReport) -> list[str]:
    """Return notes and problems, one line each."""
    problems = [
        ": ".join(part for part in (item.file, item.severity, item.object, item.field, item.message) if part)
        for item in report.problems
    ]
    return [*(f"Note: {note}" for note in report.notes), *problems]


def _check_against(against: str | None) -> str | None:
    if against not in (None, LIVE) and not Path(against or "").is_file():
        raise typer.BadParameter(f"{against!r} is neither {LIVE} nor a file", param_hint="--against")
    return against


def _parse_folders(values: list[str]) -> dict[str, Path]:
    folders = {}
    for value in values:
        source, _, path = value.partition("=")
        if not source or not path or not Path(path).is_dir():
            raise typer.BadParameter(
                f"{value!r} is not SOURCE=PATH with the path of a folder", param_hint="--model-folder"
            )
        folders[source] = Path(path)
    return folders


def _parse_budget(text: str | None) -> Decimal | None:
    if text is None:
        return None
    try:
        value = Decimal(text.removeprefix("$"))
    except InvalidOperation:
        value = Decimal(-1)
    if not value.is_finite() or value < 0:
        raise typer.BadParameter(f"{text!r} is no amount in US dollars a day", param_hint="--budget")
    return value
