"""All models."""

from dev.dashboards.panels import Dashboard, Panel, Query
from dev.dashboards.shared import BAD, IN, MODEL, NAMESPACE, READY, STALLED, stat

FLEET = Dashboard(
    "fleet",
    "Modelyard / Fleet",
    "All models: which serve, sleep, wait or fail, the load that they get, and the accelerators that are left.",
    [
        (
            "Now",
            [
                stat("Models", f"count({READY})"),
                stat("Not Ready", f"count({READY} == 0) or vector(0)", steps=BAD),
                stat("Stalled", f"count({STALLED} == 1) or vector(0)", steps=BAD),
                stat("Asleep", f"count(modelyard_wanted_replicas{{{IN}}} == 0) or vector(0)"),
                stat("Requests in progress", f"sum(modelyard_requests_in_progress{{{IN}}})"),
                stat(
                    "Cost",
                    f"sum(modelyard_gpu_hourly_cost{{{IN}}}) or vector(0)",
                    "currencyUSD",
                    description="US dollars per hour of all accelerators that are held.",
                ),
            ],
        ),
        (
            "Models",
            [
                Panel(
                    "Ready",
                    [Query(READY)],
                    kind="table",
                    hidden=("kind", "type"),
                    description="1: requests are answered, at once or after a bounded wait. The reason is in the "
                    "table of reason codes.",
                ),
                Panel(
                    "Serving replicas",
                    [
                        Query(
                            f'sum by (namespace, deployment) (modelyard_replicas{{{IN}, state="serving"}})',
                            MODEL,
                        )
                    ],
                    stacked=True,
                ),
                Panel(
                    "Offered load",
                    [
                        Query(
                            f"sum by (namespace, deployment) (modelyard_offered_requests_per_second{{{IN}}})",
                            MODEL,
                        )
                    ],
                    "reqps",
                    description="Counted at the gateway before any queue; models with scaling.",
                ),
                Panel(
                    "Changes of size",
                    [
                        Query(
                            f"sum by (reason) (increase(modelyard_size_changes_total{{{IN}}}[$__rate_interval]))",
                            "{{reason}}",
                        )
                    ],
                    stacked=True,
                ),
            ],
        ),
        (
            "Capacity",
            [
                Panel(
                    "Pods by state",
                    [Query(f"sum by (state) (modelyard_replicas{{{IN}}})", "{{state}}")],
                    stacked=True,
                ),
                Panel(
                    "Accelerators",
                    [
                        Query("sum by (class) (modelyard_accelerators)", "{{class}}, all"),
                        Query("sum by (class) (modelyard_accelerators_free)", "{{class}}, free"),
                    ],
                    description="Nodes that belong to several classes are counted in each.",
                ),
                Panel(
                    "Models that run elsewhere than they should",
                    [
                        Query(
                            f'sum by (reason) (modelyard_condition{{type="PlacementPreferred", {IN}}} == bool 0)',
                            "{{reason}}",
                        )
                    ],
                ),
                Panel(
                    "Requests that wait for a model",
                    [
                        Query(
                            f"max by (namespace, deployment) (modelyard_held_seconds{{{IN}}}) or vector(0)",
                            MODEL,
                        )
                    ],
                    "s",
                    description="How long they have waited; the longest wait is timeouts.hold of the route.",
                ),
            ],
        ),
    ],
    [NAMESPACE],
)
