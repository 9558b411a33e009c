"""The words of a plan: how its values are said to people, in a terminal and in a comment alike."""

import unicodedata
from collections.abc import Iterator
from decimal import Decimal

from modelyard.core.report.model import (
    ApiComparison,
    Change,
    DeploymentReport,
    PlanReport,
    State,
    VariantReport,
    VariantState,
)
from modelyard.core.variants import variant_label


def clean(text: str) -> str:
    """Return text in one line without control characters: names come from whoever wrote the files.

    Unicode's categories Cc and Cf hold what moves the cursor and what turns the direction of writing.
    """
    plain = "".join(" " if unicodedata.category(char) in {"Cc", "Cf", "Zl", "Zp"} else char for char in text)
    return " ".join(plain.split())


def dollars(value: Decimal | None) -> str:
    """Return US dollars with as many decimals as there are, two at least."""
    if value is None:
        return "?"
    whole, _, cents = f"{value:f}".partition(".")
    return f"{whole}.{cents.rstrip('0').ljust(2, '0')}"


def signed(value: Decimal) -> str:
    """Return a difference with its sign."""
    return f"{'+' if value >= 0 else '-'}{dollars(abs(value))}"


def number(value: float) -> str:
    """Return a count, short and in full digits: `180`, `0.35`, `0.0021`, `1,366,000`."""
    if 0 < value < 0.1:
        return f"{value:.2g}"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.2f}"


def volume(tokens: float) -> str:
    """Return a number of tokens with three digits: `37.1M`."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if tokens >= size:
            return f"{tokens / size:.3g}{unit}" if tokens < 1000 * size else f"{tokens / size:,.0f}{unit}"
    return f"{tokens:.0f}"


def describe_variant(variant: VariantReport | VariantState) -> str:
    """Return a variant as people read it: `2 x h100`, `1 x l4 spot`, `8 x h100 x 2 nodes`."""
    nodes = variant.nodes or 1
    return variant_label(
        variant.class_name, variant.count // nodes, spot=variant.purchase == "Spot", nodes=nodes
    )


def describe_variants(deployment: DeploymentReport) -> str:
    """Return what the deployment runs on."""
    shown = [variant for variant in deployment.variants if variant.replicas] or deployment.variants[:1]
    if len(shown) == 1:
        return describe_variant(shown[0])
    return ", ".join(f"{variant.replicas} on {describe_variant(variant)}" for variant in shown)


def describe_state(state: State | None) -> str:
    """Return replicas, variants and price of a state."""
    if state is None:
        return "nothing"
    on = ", ".join(f"{item.replicas} on {describe_variant(item)}" for item in state.variants)
    price = "price not known" if state.per_day is None else f"{dollars(state.per_day)} USD/day"
    return f"{on} ({price})" if on else f"0 replicas ({price})"


def describe_change(change: Change) -> str:
    """Return what becomes of a deployment."""
    if change.kind == "Changed":
        text = describe_state(change.after)
        if change.before is not None and change.after is not None and change.before != change.after:
            text = f"{describe_state(change.before)} -> {text}"
        return f"changed: {text}" + (f"; spec: {', '.join(change.fields)}" if change.fields else "")
    state = {"Added": change.after, "Removed": change.before, "Refused": change.before}.get(change.kind)
    if state is None:
        return change.kind.lower()
    stays = ", stays as it is" if change.kind == "Refused" else ""
    return f"{change.kind.lower()}: {describe_state(state)}{stays}"


def describe_fit(deployment: DeploymentReport) -> str:
    """Return the verdict in a word or two."""
    if deployment.missing_replicas:
        return f"no room for {deployment.missing_replicas}"
    if deployment.fit.verdict == "Fits" and deployment.misses_objective:
        return "fits, misses slo"
    words = {"Fits": "fits", "Unknown": "unknown", "DoesNotFit": "does not fit", "Refused": "refused"}
    return words[deployment.fit.verdict]


def describe_load(deployment: DeploymentReport) -> str:
    """Return the load that was planned for."""
    load = deployment.load
    shape = f"{number(load.input_tokens)} + {number(load.output_tokens)} tokens each"
    if load.requests_per_minute is None:
        return f"not stated ({shape})"
    origin = "spec.load" if load.source == "Spec" else "--load"
    return f"{number(load.requests_per_minute)} requests/min of {shape} ({origin})"


def describe_comparison(item: ApiComparison) -> str:
    """Return where the deployment gets cheaper than an API."""
    found = item.break_even
    if found is None:
        return "never cheaper within its bounds"
    text = f"cheaper from {number(found.requests_per_minute)} requests/min, {volume(found.tokens_per_day)} tokens/day"
    text += f" (on {found.runs_on})"
    if found.crossings > 1:
        last = number(found.always_from_requests_per_minute)
        text += f"; the costs cross {found.crossings} times, at every volume only from {last} requests/min"
    if found.until_requests_per_minute is not None:
        text += f", up to {number(found.until_requests_per_minute)}"
    return text


def describe_api(item: ApiComparison) -> str:
    """Return an API's name and what it is to the deployment."""
    return f"{item.provider} {item.model}" + (f" ({item.note} for this model)" if item.note else "")


def describe_origin(item: ApiComparison) -> str:
    """Return where a price comes from, and from when it is."""
    return f"{item.source.partition(' (')[0]}, {item.date.isoformat()}"


def describe_outcome(report: PlanReport) -> str:
    """Return the outcome in words."""
    words = {
        "Ok": "ok",
        "Invalid": "invalid manifests",
        "DoesNotFit": "does not fit",
        "OverBudget": "over budget",
    }
    return words[report.outcome]


def describe_totals(report: PlanReport) -> Iterator[str]:
    """Yield the lines that sum up."""
    totals = report.totals
    line = f"total: {dollars(totals.per_day)} USD/day ({dollars(totals.per_hour)} USD/h)"
    if totals.before_per_day is not None and totals.change_per_day is not None:
        line += f", before {dollars(totals.before_per_day)} USD/day, change {signed(totals.change_per_day)} USD/day"
    yield line
    if totals.unpriced:
        more = f" and {len(totals.unpriced) - 10} more" if len(totals.unpriced) > 10 else ""
        yield f"without the unknown price of: {', '.join(totals.unpriced[:10])}{more}"
    if report.budget is not None:
        verdict = "exceeded" if report.budget.exceeded else "kept"
        yield f"budget: {dollars(report.budget.per_day)} USD/day, {verdict}"
    yield f"result: {describe_outcome(report)}"


def find_changes(report: PlanReport) -> dict[str, Change]:
    """Return the changes by `namespace/name`."""
    return {f"{change.namespace}/{change.name}": change for change in report.changes}


def explain_deployment(deployment: DeploymentReport) -> Iterator[tuple[str, str]]:
    """Yield what there is to say about a deployment: a heading and a sentence each."""
    yield "model", f"{deployment.source}, served as {deployment.model}"
    yield "fit", deployment.fit.message
    yield "load", describe_load(deployment)
    if deployment.variants:
        yield "runs on", deployment.reason
    if deployment.size is not None:
        yield "replicas", f"{deployment.replicas}: {deployment.size.message} ({deployment.size.reason})"
    if deployment.runner_up is not None:
        variant = deployment.runner_up.variant
        yield "runner-up", f"{variant.replicas} on {describe_variant(variant)}: {deployment.runner_up.reason}"
    for rejected in deployment.rejected:
        yield "rejected", f"{rejected.option}: {rejected.message} ({rejected.reason})"
    for note in deployment.notes:
        yield "note", note
