"""Envoy."""

from dev.dashboards.panels import Dashboard, Panel, Query
from dev.dashboards.shared import BAD, events, or_none, quantiles, stat

CLIENTS = 'envoy_http_conn_manager_prefix="gateway"'
REQUESTS = "sum(rate(envoy_modelyard_requests[$__rate_interval]))"
FAILED = 'sum(rate(envoy_modelyard_requests{code=~"5.."}[$__rate_interval]))'


GATEWAY = Dashboard(
    "gateway",
    "Modelyard / Gateway",
    "Envoy: requests and errors, time, held requests, targets, providers, and what the operator reads of it.",
    [
        (
            "Now",
            [
                stat("Requests", REQUESTS, "reqps"),
                stat(
                    "Errors",
                    f"({FAILED} or vector(0)) / {REQUESTS}",
                    "percentunit",
                    steps=(("green", None), ("orange", 0.01), ("red", 0.05)),
                ),
                stat("In progress", f"sum(envoy_http_downstream_rq_active{{{CLIENTS}}})"),
                stat(
                    "Envoys connected", "max(modelyard_gateway_nodes)", steps=(("red", None), ("green", 1.0))
                ),
                stat("Configurations rejected", "max(modelyard_gateway_rejections)", steps=BAD),
                stat(
                    "Counters were read",
                    "time() - max(modelyard_gateway_reading_timestamp_seconds)",
                    "s",
                    steps=(("green", None), ("red", 30.0)),
                    description="Seconds ago.",
                ),
            ],
        ),
        (
            "Clients",
            [
                Panel(
                    "Answers by status",
                    [Query("sum by (code) (rate(envoy_modelyard_requests[$__rate_interval]))", "{{code}}")],
                    "reqps",
                    stacked=True,
                    description="0: the client left.",
                ),
                Panel(
                    "Time of whole answers",
                    quantiles(f"envoy_http_downstream_rq_time_bucket{{{CLIENTS}}}"),
                    "ms",
                    description="Until the last byte, held requests included.",
                ),
                Panel(
                    "Arrivals by route",
                    [
                        Query(
                            "sum by (route) "
                            "(rate(envoy_modelyard_arrivals_http_local_rate_limit_enabled[$__rate_interval]))",
                            "{{route}}",
                        )
                    ],
                    "reqps",
                    escaped=True,
                    description="Before any hold.",
                ),
                Panel(
                    "Requests refused for a tenant's limit",
                    or_none(
                        "sum by (tenant, limit) (rate(modelyard_limited_requests_total[$__rate_interval]))",
                        "{{tenant}} {{limit}}",
                    ),
                    "reqps",
                    soft_max=1,
                ),
            ],
        ),
        (
            "Sleeping models",
            [
                Panel(
                    "From the first held request to the first serving replica",
                    quantiles("modelyard_wake_seconds_bucket", over="$__range"),
                    "s",
                    kind="bargauge",
                    width=8,
                    absent="no model was woken",
                    description="Of all models that were woken in this time range.",
                ),
                Panel(
                    "Wake signals",
                    [events("modelyard_wakes_total", legend="wakes")],
                    counted=True,
                    soft_max=1,
                    width=8,
                ),
                Panel(
                    "Requests that no target answered",
                    or_none(
                        'sum by (route, code) (rate(envoy_modelyard_requests{deployment="", route!=""}'
                        "[$__rate_interval]))",
                        "{{route}} {{code}}",
                    ),
                    "reqps",
                    soft_max=1,
                    width=8,
                    escaped=True,
                    description="503: the hold ran out, or nothing may serve. 429: a budget or a limit.",
                ),
            ],
        ),
        (
            "Targets",
            [
                Panel(
                    "Answers by target",
                    [
                        Query(
                            'sum by (deployment) (rate(envoy_modelyard_requests{deployment!=""}[$__rate_interval]))',
                            "{{deployment}}",
                        )
                    ],
                    "reqps",
                    stacked=True,
                    long_names=True,
                ),
                Panel(
                    "Errors of providers",
                    or_none(
                        'sum by (deployment, code) (rate(envoy_modelyard_requests{deployment=~"provider:.+", '
                        'code!~"2.."}[$__rate_interval]))',
                        "{{deployment}} {{code}}",
                    ),
                    "reqps",
                    soft_max=1,
                    long_names=True,
                ),
                Panel(
                    "Attempts that failed",
                    or_none(
                        "sum by (envoy_cluster_name) (rate(envoy_cluster_upstream_rq_xx"
                        '{envoy_response_code_class="5"}[$__rate_interval])) > 0',
                        "{{envoy_cluster_name}}",
                    ),
                    "reqps",
                    soft_max=1,
                    long_names=True,
                    escaped=True,
                ),
                Panel(
                    "Endpoints taken out",
                    or_none(
                        "sum by (envoy_cluster_name) (envoy_cluster_outlier_detection_ejections_active) > 0",
                        "{{envoy_cluster_name}}",
                    ),
                    soft_max=1,
                    long_names=True,
                    escaped=True,
                ),
            ],
        ),
        (
            "Envoy",
            [
                Panel(
                    "Client connections",
                    [Query(f"sum(envoy_http_downstream_cx_active{{{CLIENTS}}})", "open")],
                ),
                Panel("Memory", [Query("envoy_server_memory_allocated", "{{instance}}")], "bytes"),
                Panel(
                    "Readings of the counters",
                    [
                        Query(
                            "sum by (outcome) (rate(modelyard_gateway_readings_total[$__rate_interval]))",
                            "{{outcome}}",
                        )
                    ],
                    "ops",
                ),
                Panel(
                    "Certificate ends in",
                    [Query("modelyard_gateway_certificate_not_after_timestamp_seconds - time()", "{{name}}")],
                    "s",
                    absent="the gateway serves without TLS",
                    description="Only where the gateway serves TLS.",
                ),
            ],
        ),
    ],
)
