"""Envoy."""

from dev.dashboards.panels import Dashboard, Panel, Query
from dev.dashboards.shared import BAD, quantiles, stat

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
                    description="Before any hold.",
                ),
                Panel(
                    "Requests refused for a tenant's limit",
                    [
                        Query(
                            "sum by (tenant, limit) (rate(modelyard_limited_requests_total[$__rate_interval])) "
                            "or vector(0)",
                            "{{tenant}} {{limit}}",
                        )
                    ],
                    "reqps",
                ),
            ],
        ),
        (
            "Sleeping models",
            [
                Panel(
                    "Time from the first held request to the first serving replica",
                    quantiles("modelyard_wake_seconds_bucket"),
                    "s",
                ),
                Panel(
                    "Wake signals", [Query("sum(increase(modelyard_wakes_total[$__rate_interval]))", "wakes")]
                ),
                Panel(
                    "Requests that no target answered",
                    [
                        Query(
                            'sum by (route, code) (rate(envoy_modelyard_requests{deployment="", route!=""}'
                            "[$__rate_interval])) or vector(0)",
                            "{{route}} {{code}}",
                        )
                    ],
                    "reqps",
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
                ),
                Panel(
                    "Errors of providers",
                    [
                        Query(
                            'sum by (deployment, code) (rate(envoy_modelyard_requests{deployment=~"provider:.+", '
                            'code!~"2.."}[$__rate_interval])) or vector(0)',
                            "{{deployment}} {{code}}",
                        )
                    ],
                    "reqps",
                ),
                Panel(
                    "Attempts that failed",
                    [
                        Query(
                            "sum by (envoy_cluster_name) (rate(envoy_cluster_upstream_rq_xx"
                            '{envoy_response_code_class="5"}[$__rate_interval])) or vector(0)',
                            "{{envoy_cluster_name}}",
                        )
                    ],
                    "reqps",
                ),
                Panel(
                    "Endpoints taken out",
                    [
                        Query(
                            "sum by (envoy_cluster_name) (envoy_cluster_outlier_detection_ejections_active) "
                            "or vector(0)",
                            "{{envoy_cluster_name}}",
                        )
                    ],
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
                    description="Only where the gateway serves TLS.",
                ),
            ],
        ),
    ],
)
