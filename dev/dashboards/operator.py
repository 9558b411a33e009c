"""The operator's own work."""

from dev.dashboards.panels import Dashboard, Panel, Query
from dev.dashboards.shared import BAD, events, or_none, quantiles, stat

OPERATOR = Dashboard(
    "operator",
    "Modelyard / Operator",
    "The operator's own work: who decides, its queue, its view of the cluster, the Kubernetes API, and its process.",
    [
        (
            "Now",
            [
                stat(
                    "Active operators",
                    "sum(modelyard_leader)",
                    steps=(("red", None), ("green", 1.0), ("red", 2.0)),
                    description="One. The others stand by.",
                ),
                stat("Keys that wait", "max(modelyard_queue_length)"),
                stat(
                    "Oldest key",
                    "max(modelyard_queue_oldest_seconds)",
                    "s",
                    steps=(("green", None), ("red", 60.0)),
                ),
                stat("Keys that fail", "max(modelyard_queue_failing)", steps=BAD),
                stat(
                    "View of the cluster",
                    "max(modelyard_watch_age_seconds)",
                    "s",
                    steps=(("green", None), ("red", 300.0)),
                    description="Seconds since it was known to be what the API server has.",
                ),
                stat("Unreadable objects", "sum(modelyard_unreadable_objects)", steps=BAD),
            ],
        ),
        (
            "Work",
            [
                Panel(
                    "Reconciliations",
                    [
                        Query(
                            "sum by (outcome) (rate(modelyard_reconciles_total[$__rate_interval]))",
                            "{{outcome}}",
                        )
                    ],
                    "ops",
                ),
                Panel("Duration of a reconciliation", quantiles("modelyard_reconcile_seconds_bucket"), "s"),
                Panel("Wait in the queue", quantiles("modelyard_queue_wait_seconds_bucket"), "s", width=8),
                Panel(
                    "Duration of a placement of the fleet",
                    [
                        Query(
                            "max(modelyard_placement_seconds_sum / (modelyard_placement_seconds_count > 0))",
                            "mean",
                        )
                    ],
                    "s",
                    width=8,
                    absent="no deployment may run in several ways",
                    description="Mean since the operator started. The fleet is placed as a whole while a deployment "
                    "may run in several ways.",
                ),
                Panel(
                    "Distance of the placement to the optimum",
                    [Query("max(modelyard_placement_gap)", "at most")],
                    "percentunit",
                    soft_max=0.05,
                    width=8,
                ),
            ],
        ),
        (
            "Kubernetes API",
            [
                Panel(
                    "Duration of applies",
                    quantiles('modelyard_api_request_seconds_bucket{method="PATCH"}'),
                    "s",
                ),
                Panel(
                    "Requests by method",
                    [
                        Query(
                            "sum by (method) (rate(modelyard_api_request_seconds_count[$__rate_interval]))",
                            "{{method}}",
                        )
                    ],
                    "reqps",
                ),
                Panel(
                    "Requests that failed",
                    or_none(
                        "sum by (method, resource, code) "
                        "(rate(modelyard_api_request_errors_total[$__rate_interval])) > 0",
                        "{{method}} {{resource}} {{code}}",
                    ),
                    "reqps",
                    soft_max=1,
                    description="404 and 409 are part of normal work.",
                ),
                Panel(
                    "Writes by kind",
                    [Query("sum by (kind) (rate(modelyard_writes_total[$__rate_interval]))", "{{kind}}")],
                    "wps",
                ),
                Panel(
                    "Age of the views",
                    [Query("max by (resource) (modelyard_watch_age_seconds)", "{{resource}}")],
                    "s",
                ),
                Panel(
                    "Last event of each watch",
                    [
                        Query(
                            "time() - max by (resource) (modelyard_watch_last_event_timestamp_seconds)",
                            "{{resource}}",
                        )
                    ],
                    "s",
                    description="Seconds ago. A quiet kind has none for long.",
                ),
                Panel(
                    "Kubernetes Events",
                    [events("modelyard_events_total", "outcome")],
                    counted=True,
                    soft_max=1,
                ),
                Panel(
                    "Ledger",
                    [events("modelyard_ledger_writes_total", "outcome")],
                    counted=True,
                    soft_max=1,
                ),
            ],
        ),
        (
            "Process",
            [
                Panel(
                    "Memory",
                    [
                        Query(
                            "process_resident_memory_bytes and on (job, instance) modelyard_leader",
                            "{{instance}}",
                        )
                    ],
                    "bytes",
                ),
                Panel(
                    "CPU",
                    [
                        Query(
                            "rate(process_cpu_seconds_total[$__rate_interval]) "
                            "and on (job, instance) modelyard_leader",
                            "{{instance}}",
                        )
                    ],
                    "none",
                    description="Cores.",
                ),
                Panel("Lag of the event loop", [Query("max(modelyard_event_loop_lag_seconds)", "lag")], "s"),
                Panel(
                    "Readings of engines",
                    or_none(
                        "sum by (outcome) (rate(modelyard_engine_readings_total[$__rate_interval]))",
                        "{{outcome}}",
                    ),
                    "ops",
                ),
            ],
        ),
    ],
)
