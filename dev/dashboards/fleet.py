"""All models."""

from dev.dashboards.panels import Dashboard, Panel, Query
from dev.dashboards.shared import BAD, IN, MODEL, NAMESPACE, READY, STALLED, YES_NO, events, or_none, stat

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
                    renamed={"Value": "ready", "name": "model"},
                    words=YES_NO,
                    description="Yes: requests are answered, at once or after a bounded wait. The reason is in the "
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
                    [events(f"modelyard_size_changes_total{{{IN}}}", "reason")],
                    counted=True,
                    soft_max=1,
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
                    or_none(
                        f'count by (reason) (modelyard_condition{{type="PlacementPreferred", {IN}}} == 0)',
                        "{{reason}}",
                    ),
                    soft_max=1,
                ),
                Panel(
                    "Requests that wait for a model",
                    or_none(f"max by (namespace, deployment) (modelyard_held_seconds{{{IN}}})", MODEL),
                    "s",
                    soft_max=1,
                    description="How long they have waited; the longest wait is timeouts.hold of the route.",
                ),
            ],
        ),
    ],
    [NAMESPACE],
)
