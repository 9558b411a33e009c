"""`modelyard cost`: what was used and spent, by whom, from the ledger in the cluster."""

import asyncio
import math
import time
from enum import StrEnum
from typing import Annotated, cast

import typer

from modelyard.cli.costformat import CostFormat, CostReport, format_cost
from modelyard.cli.costread import LedgerView, parse_moment, read_view
from modelyard.cli.kubeconfig import Context, Kubeconfig, find_access
from modelyard.cli.manifests import InputError
from modelyard.core.ledger.codec import LedgerError
from modelyard.core.ledger.report import Basis, By, add_up_rows
from modelyard.core.report.model import EXIT_CODES
from modelyard.core.spend import HOUR
from modelyard.kube.errors import ApiError
from modelyard.runtime.settings import SYSTEM_NAMESPACE

USAGE = EXIT_CODES["Invalid"]

HELP = """Say what was used and spent: by tenant, route, deployment or namespace.

It reads the ledger that the operator keeps in ConfigMaps of its namespace: hours of the last 35 days, and sums of days
for a year before that.

\b
Exit codes:
  0  the report was written, be it an empty one
  1  the cluster or the ledger could not be read
  2  an option is wrong

\b
Examples:
  modelyard cost --by tenant --since 7d
  modelyard cost --by route --since 2026-11-01 --until 2026-12-01 -o csv
  modelyard cost --by deployment --since 24h --basis marginal
  modelyard cost --by namespace -o json | jq '.rows[] | {name, dollars}'

\b
Basis      allocation: the hours that the accelerators of a deployment
           were held, idle included, shared out by the work of tokens
           (1 each of a prompt, 0.25 if cached, 4 of an answer).
           marginal: of that, the share of the capacity that the requests
           took. Tokens of providers cost the same on both.
Estimated  answers that ended before they told their usage: a client left,
           or an engine died. Their prompt is taken as one token for four
           bytes, their answer as one for each event that was sent.
Not known  what has no price. It is never counted as 0.
csv        columns of FOCUS 1.2, the FinOps Foundation's format.

docs/cost.md says how each figure comes about.
"""


class _By(StrEnum):
    TENANT = "tenant"
    ROUTE = "route"
    DEPLOYMENT = "deployment"
    NAMESPACE = "namespace"


class _Basis(StrEnum):
    ALLOCATION = "allocation"
    MARGINAL = "marginal"


def cost(
    by: Annotated[_By, typer.Option("--by", help="What the rows stand for.")] = _By.TENANT,
    since: Annotated[
        str, typer.Option(help="Begin: 36h, 7d or 2w ago, a date, or a time. Whole hours of UTC count.")
    ] = "7d",
    until: Annotated[str | None, typer.Option(help="End, in the same forms. Default: now.")] = None,
    basis: Annotated[
        _Basis, typer.Option(help="Which cost of own accelerators is shown.")
    ] = _Basis.ALLOCATION,
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Namespace of the operator and the gateway.")
    ] = SYSTEM_NAMESPACE,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    output: Annotated[CostFormat, typer.Option("--output", "-o")] = CostFormat.TABLE,
) -> None:
    """Read the ledger and write the report."""
    now = time.time()
    begin, end = _read_moment(since, "--since", now), now
    if until is not None:
        end = _read_moment(until, "--until", now)
    if end <= begin:
        raise typer.BadParameter("it must be later than --since", param_hint="--until")
    try:
        view = asyncio.run(read_view(find_access(kubeconfig, context), namespace))
    except InputError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(USAGE) from error
    except (ApiError, LedgerError, ValueError) as error:
        typer.echo(f"Error: the ledger in namespace {namespace} cannot be read: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(format_cost(build_report(view, by.value, basis.value, begin, end, output), output))


def build_report(
    view: LedgerView, by: str, basis: str, begin: float, end: float, output: CostFormat
) -> CostReport:
    """Return what is written, for whole hours of UTC."""
    since, until = int(begin // HOUR * HOUR), math.ceil(end / HOUR) * HOUR
    named, costed = cast("By", by), cast("Basis", basis)
    rows = add_up_rows(view.periods, named, costed, since, until, split=output is CostFormat.CSV)
    return CostReport(named, costed, since, until, view.time, rows)


def _read_moment(text: str, option: str, now: float) -> float:
    try:
        return parse_moment(text, now)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error
