"""The words of a simulation: how its values are said to people, in a terminal, a comment and a page alike."""

import math
from collections.abc import Iterator, Sequence

from modelyard.cli.planwords import clean, dollars, number
from modelyard.cli.simulatemodel import (
    Decision,
    PolicyRun,
    PolicyTotal,
    Quantiles,
    RunCost,
    SimulatedDeployment,
    SimulatedLoad,
    SimulatedSetting,
    SimulationReport,
)

HEADERS = (
    "POLICY",
    "ATTAINED",
    "REFUSED",
    "ABANDONED",
    "TTFT P50/P90/P99",
    "ITL P50/P90/P99",
    "USD",
    "USD/H",
    "USD/1M TOKENS",
    "COLD STARTS",
    "REPLICA-HOURS",
    "PEAK",
)
TOTAL_HEADERS = (
    "POLICY",
    "REQUESTS",
    "ATTAINED",
    "REFUSED",
    "ABANDONED",
    "USD",
    "USD/H",
    "USD/1M TOKENS",
    "COLD STARTS",
    "REPLICA-HOURS",
)


def percent(share: float) -> str:
    """Return a share rounded down, so that only all of them are 100 %."""
    return f"{math.floor(share * 10_000 + 1e-6) / 100:.2f}%"


def clock(seconds: float) -> str:
    """Return a time of the run: `1:02:03`, or with days `2d 03:04:05`."""
    whole = int(seconds)
    days, rest = divmod(whole, 86_400)
    hours, minutes, rest = rest // 3600, rest % 3600 // 60, rest % 60
    return f"{days}d {hours:02d}:{minutes:02d}:{rest:02d}" if days else f"{hours}:{minutes:02d}:{rest:02d}"


def latency(seconds: float | None) -> str:
    """Return seconds or milliseconds with three digits."""
    if seconds is None:
        return "-"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def quantiles(values: Quantiles) -> str:
    """Return median, 90th and 99th percentile."""
    return " / ".join(latency(value) for value in (values.p50, values.p90, values.p99))


def money(cost: RunCost | None) -> tuple[str, str, str]:
    """Return total, per hour and per million tokens."""
    if cost is None:
        return "?", "?", "?"
    each = "-" if cost.per_million_tokens is None else dollars(cost.per_million_tokens)
    return dollars(cost.total), dollars(cost.per_hour), each


def describe_run(run: PolicyRun) -> tuple[str, ...]:
    """Return the cells of a run, in the order of HEADERS."""
    return (
        run.policy,
        percent(run.attainment),
        f"{run.refused:,}",
        f"{run.abandoned:,}",
        quantiles(run.first_token),
        quantiles(run.inter_token),
        *money(run.cost),
        f"{run.cold_starts:,}",
        f"{run.replica_hours:,.2f}",
        str(run.peak_replicas),
    )


def describe_total(total: PolicyTotal) -> tuple[str, ...]:
    """Return the cells of a total, in the order of TOTAL_HEADERS."""
    return (
        total.policy,
        f"{total.requests:,}",
        percent(total.attainment),
        f"{total.refused:,}",
        f"{total.abandoned:,}",
        *money(total.cost),
        f"{total.cold_starts:,}",
        f"{total.replica_hours:,.2f}",
    )


def explain_setting(deployment: SimulatedDeployment) -> Iterator[tuple[str, str]]:
    """Yield what was simulated: a heading and a sentence each."""
    yield "load", describe_load(deployment.load)
    setting = deployment.setting
    if setting is None:
        yield "refused", clean(deployment.refusal)
        return
    price = "price not known" if setting.price_per_hour is None else f"${dollars(setting.price_per_hour)}/h"
    capacity = f"{number(setting.capacity_per_minute)} requests a minute and replica"
    yield "runs on", f"{setting.runs_on} ({price} a replica): {capacity}, {setting.basis}"
    bounds = f"{setting.minimum} to {setting.maximum}, {setting.initial} at the start"
    node = f", a new node {setting.provision_time:g} s before" if setting.provision_time else ""
    pull = f", its image {setting.image_pull_time:g} s before" if setting.image_pull_time else ""
    yield "replicas", f"{bounds}; a start takes {round(setting.start_time)} s{node}{pull}"
    faults = "; ".join(_describe_faults(setting))
    if faults:
        yield "faults", faults
    if setting.begin is not None:
        yield "schedules", f"the traffic begins at {setting.begin}"
    first, between = latency(setting.first_token), latency(setting.inter_token)
    yield "objective", f"first token within {first}, {between} between tokens (mean of an answer)"
    for note in deployment.notes:
        yield "note", clean(note)


def _describe_faults(setting: SimulatedSetting) -> Iterator[str]:
    """Yield what goes wrong on the way, a clause each."""
    if setting.abandon_after is not None:
        again = f" and ask again, up to {setting.retries} times" if setting.retries else ""
        yield f"clients give up after {setting.abandon_after:g} s{again}"
    if setting.scrape_delay is not None:
        yield f"metrics are {setting.scrape_delay:g} s old"
    for lost in setting.lost_metrics or ():
        yield f"no metrics from {clock(lost.start)} to {clock(lost.end)}"
    for loss in setting.spot_losses or ():
        yield f"{loss.replicas} replica{'' if loss.replicas == 1 else 's'} taken away at {clock(loss.time)}"


def describe_load(load: SimulatedLoad) -> str:
    """Return what came."""
    return (
        f"{load.requests:,} requests in {clock(load.duration)} ({clean(load.trace)}): "
        f"{load.mean_requests_per_second:.2f}/s, {load.peak_requests_per_second:.2f}/s in the busiest ten minutes, "
        f"{number(load.input_tokens)} + {number(load.output_tokens)} tokens each"
    )


def describe_decisions(run: PolicyRun) -> str:
    """Return how often the size changed, and what the decisions were in all."""
    count = len(run.decisions)
    text = f"{count:,} change{'' if count == 1 else 's'} of size"
    if run.reversals:
        text += f", {run.reversals:,} of them back within one start time"
    if run.reasons:
        counts = sorted(run.reasons.items(), key=lambda item: (-item[1], item[0]))
        text += f"; all decisions: {', '.join(f'{reason} {count:,}' for reason, count in counts)}"
    return text


def describe_decision(decision: Decision) -> tuple[str, str, str, str]:
    """Return time, change, reason and sentence."""
    change = f"{decision.from_replicas} -> {decision.to_replicas}"
    return clock(decision.time), change, decision.reason or "-", clean(decision.message)


def describe_outcome(report: SimulationReport) -> str:
    """Return the outcome in words."""
    refused: Sequence[str] = [item.key for item in report.deployments if item.refusal]
    return f"not simulated: {', '.join(refused)}" if refused else "ok"
