"""`modelyard simulate`: how manifests behave on recorded traffic, without a cluster and without a GPU."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from modelyard.api.quantities import parse_duration
from modelyard.cli.kubeconfig import Context, Kubeconfig
from modelyard.cli.manifests import InputError
from modelyard.cli.options import Files, ObjectNamespace
from modelyard.cli.planformat import PlanFormat
from modelyard.core.report.model import EXIT_CODES
from modelyard.kube.errors import ApiError

HELP = """Play recorded traffic against manifests: attainment, cost, cold starts, replicas, and why.

The decision is the cluster's own; engines follow the step-time model of the variant that it chooses for the peak of
the load. Neither cluster nor GPU is needed, and nothing is written but --report.

\b
Standard output carries the report only; the rest goes to standard error.

\b
Exit codes, the first that applies:
  2  a manifest, the trace or an option is invalid
  3  a deployment does not fit, or is not known well enough to be simulated
  0  none of these (and 1: the cluster could not be read)

\b
Examples:
  modelyard simulate -f manifests/ --trace week.csv.gz
  modelyard simulate -f manifests/ --trace week.csv.gz --speed 2x --report out
  modelyard simulate -f llama.yaml --synthetic poisson:rate=5,hours=1
  modelyard simulate -f llama.yaml --trace day.csv \\
    --policy modelyard --policy hpa-concurrency
  modelyard simulate -f llama.yaml --trace day.csv \\
    --lost-metrics 9h-9h20m --spot-loss 14h=2

\b
Traces     CSV or JSON lines, gzipped or not: time, input_tokens,
           output_tokens; or those of Azure, BurstGPT and Mooncake. With a
           column `deployment` each row goes to that one, else to all.
Synthetic  poisson:rate=                 step:before=,after=,at=
           sinusoid:low=,high=,period=   bursts:rate=,cv=
           and hours=, minutes=, seconds=, input=, output=, input-cv=,
           output-cv=

docs/simulate.md has what is simulated, every policy, and the schema of json and yaml.
"""

USAGE = EXIT_CODES["Invalid"]
MOST_RETRIES = 10
"""More would be a client that never stops; each ask is simulated."""


def simulate(
    files: Files,
    trace: Annotated[Path | None, typer.Option(help="Recorded traffic.", exists=True, dir_okay=False)] = None,
    synthetic: Annotated[
        str | None, typer.Option(metavar="KIND:NAME=VALUE,...", help="Made traffic, instead of --trace.")
    ] = None,
    deployment: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAMESPACE/]NAME",
            help="Simulate only this one; may be given several times. Default: all.",
        ),
    ] = None,
    speed: Annotated[
        str, typer.Option(metavar="2x", help="Times the requests per second of the trace, its shape kept.")
    ] = "1x",
    policy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="modelyard, or a published rule to compare with, as hpa-concurrency; may be given several times. "
            "Default: modelyard.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same output.", min=0)] = 0,
    start_time: Annotated[
        str | None,
        typer.Option(
            metavar="120s",
            help="Median time that a replica takes to start. Default: what the operator expects from the size of the "
            "weights, 2m where it is not known.",
        ),
    ] = None,
    begin: Annotated[
        str | None,
        typer.Option(
            metavar="2027-01-18T00:00",
            help="Date and time at which the traffic begins, UTC unless it says otherwise: for scaling.schedules. "
            "Default: that of the trace's first request, or this Monday.",
        ),
    ] = None,
    abandon_after: Annotated[
        str | None,
        typer.Option(
            metavar="30s", help="Clients give up after this long without a first token. Default: never."
        ),
    ] = None,
    retries: Annotated[
        int,
        typer.Option(help="Times that a client who gave up asks again, at once.", min=0, max=MOST_RETRIES),
    ] = 0,
    scrape_delay: Annotated[
        str | None,
        typer.Option(
            metavar="15s", help="How old the metrics are that the policy sees. Default: not at all."
        ),
    ] = None,
    lost_metrics: Annotated[
        list[str] | None,
        typer.Option(
            metavar="20m-35m",
            help="From when to when no metrics are read, from the start of the traffic; may be given several times.",
        ),
    ] = None,
    spot_loss: Annotated[
        list[str] | None,
        typer.Option(
            metavar="30m=2",
            help="When replicas are taken away, and how many at once; may be given several times.",
        ),
    ] = None,
    image_pull: Annotated[
        str | None,
        typer.Option(
            metavar="90s",
            help="Time that a node takes to pull the engine's image before the first replica on it starts. "
            "Default: none.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="live|FILE",
            help="Whose classes and nodes count: the cluster, only read, or an inventory file.",
        ),
    ] = None,
    output: Annotated[
        PlanFormat,
        typer.Option("--output", "-o", help="markdown is made for a comment on a pull request."),
    ] = PlanFormat.TABLE,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Also write index.html with plots, the plots as PNG, report.json and decisions.csv there.",
            file_okay=False,
        ),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask no model hub: other models cannot be simulated.")
    ] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: ObjectNamespace = "default",
) -> None:
    """Play recorded traffic against manifests."""
    # The compiler of the simulator takes 90 MiB and a second: the operator and the other commands do without.
    from modelyard.cli.simulatedisturb import parse_disturbances
    from modelyard.cli.simulaterun import Simulate, run_simulation

    try:
        code = run_simulation(
            Simulate(
                files=files,
                trace=trace,
                synthetic=synthetic,
                deployments=tuple(deployment or ()),
                speed=speed,
                policies=tuple(policy or ()),
                seed=seed,
                start_time=_parse_seconds(start_time, "--start-time"),
                begin=_parse_moment(begin, "--begin"),
                disturbances=parse_disturbances(
                    abandon_after=_parse_seconds(abandon_after, "--abandon-after"),
                    retries=retries,
                    scrape_delay=_parse_seconds(scrape_delay, "--scrape-delay") or 0.0,
                    lost_metrics=tuple(lost_metrics or ()),
                    spot_losses=tuple(spot_loss or ()),
                ),
                image_pull=_parse_seconds(image_pull, "--image-pull") or 0.0,
                against=against,
                output=output,
                report=report,
                offline=offline,
                kubeconfig=kubeconfig,
                context=context,
                namespace=namespace,
            )
        )
    except InputError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(USAGE) from error
    except ApiError as error:
        typer.echo(f"Error: the cluster cannot be read: {error}", err=True)
        raise typer.Exit(1) from error
    if code:
        raise typer.Exit(code)


def _parse_seconds(text: str | None, option: str) -> float | None:
    if text is None:
        return None
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error
    if not seconds:
        raise typer.BadParameter(f"{text!r} must be above 0", param_hint=option)
    return float(seconds)


def _parse_moment(text: str | None, option: str) -> float | None:
    """Return the Unix time of a date or a date and time."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = moment.timestamp()
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(
            f"{text!r} is no date: write it like 2027-01-18T00:00", param_hint=option
        ) from error
    if not 1970 < moment.year < 9000:
        raise typer.BadParameter(f"{text!r} is too far away", param_hint=option)
    return seconds
