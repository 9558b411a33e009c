"""What several dashboards use."""

from dev.dashboards.panels import Panel, Query, Variable

IN = 'namespace=~"$namespace"'
ONE = 'namespace=~"$namespace", deployment=~"$deployment"'
BAD = (("green", None), ("red", 1.0))
WARN = (("green", None), ("orange", 1.0))
MODEL = "{{namespace}}/{{deployment}}"

NAMESPACE = Variable("namespace", "label_values(modelyard_replicas, namespace)", "Namespace")
DEPLOYMENT = Variable(
    "deployment", 'label_values(modelyard_replicas{namespace=~"$namespace"}, deployment)', "Model", many=False
)
NAMESPACE_OF_ONE = Variable(
    "namespace", "label_values(modelyard_replicas, namespace)", "Namespace", many=False
)

READY = 'modelyard_condition{kind="LLMDeployment", type="Ready", namespace=~"$namespace"}'
STALLED = 'modelyard_condition{kind="LLMDeployment", type="Stalled", namespace=~"$namespace"}'


def stat(title: str, expression: str, unit: str = "short", **options: object) -> Panel:
    """Return a small panel with one number."""
    return Panel(title, [Query(expression)], unit, kind="stat", width=4, **options)  # type: ignore[arg-type]


def quantiles(metric: str, by: str = "") -> list[Query]:
    """Return median, 95th and 99th percentile of a histogram."""
    return [
        Query(f"histogram_quantile({share}, sum by (le{by}) (rate({metric}[$__rate_interval])))", legend)
        for share, legend in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    ]
