"""What several dashboards use."""

from dev.dashboards.panels import Panel, Query, Variable

IN = 'namespace=~"$namespace"'
ONE = 'namespace=~"$namespace", deployment=~"$deployment"'
BAD = (("green", None), ("red", 1.0))
MODEL = "{{namespace}}/{{deployment}}"
YES_NO = {0: ("no", "red"), 1: ("yes", "green")}
"""Of conditions."""

NAMESPACE = Variable("namespace", "label_values(modelyard_replicas, namespace)", "Namespace")
DEPLOYMENT = Variable(
    "deployment", 'label_values(modelyard_replicas{namespace=~"$namespace"}, deployment)', "Model", many=False
)
NAMESPACE_OF_ONE = Variable(
    "namespace", "label_values(modelyard_replicas, namespace)", "Namespace", many=False
)

READY = 'modelyard_condition{kind="LLMDeployment", type="Ready", namespace=~"$namespace"}'
STALLED = 'modelyard_condition{kind="LLMDeployment", type="Stalled", namespace=~"$namespace"}'


NONE = "vector(0) unless on() "


def stat(title: str, expression: str, unit: str = "short", **options: object) -> Panel:
    """Return a small panel with one number."""
    return Panel(title, [Query(expression)], unit, kind="stat", width=4, **options)  # type: ignore[arg-type]


def events(counter: str, by: str = "", legend: str = "") -> Query:
    """Return how often something happened between two points of a graph.

    `increase` would count a change in every window that it lies in, as windows are longer than steps, and never the
    first one of a series, which begins with 1. After a restart of the operator one step is empty.
    """
    now = f"sum{f' by ({by})' if by else ''} ({counter})"
    before = f"sum{f' by ({by})' if by else ''} ({counter} offset $__interval)"
    return Query(f"clamp_min({now} - ({before} or 0 * {now}), 0)", legend or f"{{{{{by}}}}}", least_step="1m")


def or_none(expression: str, legend: str) -> list[Query]:
    """Return series that are mostly absent, and a zero called "none" where there are none of them."""
    return [Query(expression, legend), Query(f"{NONE}({expression})", "none")]


def quantiles(metric: str, by: str = "", over: str = "$__rate_interval") -> list[Query]:
    """Return median, 95th and 99th percentile of a histogram."""
    return [
        Query(f"histogram_quantile({share}, sum by (le{by}) (rate({metric}[{over}])))", legend)
        for share, legend in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    ]
