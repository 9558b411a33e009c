"""Metrics of the operator itself, for people and outside autoscalers: no decision reads them.

What a scrape can work out from the state of the fleet is in `fleetmetrics`. docs/observability.md lists all.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from modelyard.core.external import METRIC

DEPLOYMENT = ("namespace", "deployment")
ROUTE = ("namespace", "route")
VARIANT_LATENCY = (*DEPLOYMENT, "variant", "latency")
CERTIFICATE = ("namespace", "name")
"""Labels that metrics share: queries join metrics by them, so all have them alike. A latency is one of those that an
objective is about."""

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

LEADER = Gauge(
    "modelyard_leader",
    "1 in the operator that acts, with or without --lease; 0 in one that stands by.",
    registry=REGISTRY,
)
RECONCILES = Counter("modelyard_reconciles", "Reconciliations, by outcome.", ["outcome"], registry=REGISTRY)
RECONCILE_SECONDS = Histogram(
    "modelyard_reconcile_seconds", "Duration of one reconciliation.", registry=REGISTRY
)
API_REQUEST_SECONDS = Histogram(
    "modelyard_api_request_seconds",
    "Duration of requests to the Kubernetes API, by method (PATCH: server-side apply) and resource. Watches are not "
    "among them.",
    ["method", "resource"],
    registry=REGISTRY,
)
API_REQUEST_ERRORS = Counter(
    "modelyard_api_request_errors",
    "Requests to the Kubernetes API that failed, by method, resource and status; 0: no answer. 404 and 409 are part of "
    "normal work.",
    ["method", "resource", "code"],
    registry=REGISTRY,
)
QUEUE_WAIT_SECONDS = Histogram(
    "modelyard_queue_wait_seconds", "Time from asking for work on a key to its begin.", registry=REGISTRY
)
WAKE_SECONDS = Histogram(
    "modelyard_wake_seconds",
    "Time from the first held request for a sleeping model to its first serving replica.",
    # A small model from a local disk takes seconds; large ones from the network take up to the longest hold, 10 min,
    # and beyond.
    buckets=(1, 2.5, 5, 10, 20, 30, 60, 120, 180, 300, 600, 1200, 1800),
    registry=REGISTRY,
)
EVENTS = Counter(
    "modelyard_events",
    "Kubernetes Events: created; repeated (counted on the one that stands); suppressed (too many of one object); "
    "failed.",
    ["outcome"],
    registry=REGISTRY,
)
EVENT_LOOP_LAG = Gauge(
    "modelyard_event_loop_lag_seconds",
    "How late the event loop was when it was last looked at.",
    registry=REGISTRY,
)
TABLE_BUILDS = Counter(
    "modelyard_table_builds",
    "Routing tables of the gateway, by outcome: built; failed (Envoys keep the last one).",
    ["outcome"],
    registry=REGISTRY,
)
TABLE_FAILING = Gauge(
    "modelyard_table_failing",
    "1 while the routing table cannot be built, and Envoys keep the last one.",
    registry=REGISTRY,
)
WRITES = Counter("modelyard_writes", "Writes to the Kubernetes API, by kind.", ["kind"], registry=REGISTRY)
DECISIONS = Counter(
    "modelyard_size_changes",
    "Changes of the decided size, by reason.",
    (*DEPLOYMENT, "reason"),
    registry=REGISTRY,
)
DESIRED_REPLICAS = Gauge(
    METRIC,
    "Replicas that were decided; what an outside autoscaler follows.",
    DEPLOYMENT,
    registry=REGISTRY,
)
ROUTE_SHARE = Gauge(
    "modelyard_route_share",
    "Part of a route's requests that comes first to a target.",
    (*ROUTE, "target"),
    registry=REGISTRY,
)
ROUTE_SPILLED = Gauge(
    "modelyard_route_spilled_share",
    "Part of a route's requests that goes elsewhere because replicas are missing.",
    ROUTE,
    registry=REGISTRY,
)
ROUTE_COST = Gauge(
    "modelyard_route_cost_dollars_per_hour",
    "What a route of policy LowestCost would cost at a target, at the load that is expected.",
    (*ROUTE, "target"),
    registry=REGISTRY,
)
ROUTE_CHANGES = Counter(
    "modelyard_route_changes",
    "Changes of the target of a route of policy LowestCost, by reason.",
    (*ROUTE, "reason"),
    registry=REGISTRY,
)
GATEWAY_ROUTE = Gauge(
    "modelyard_gateway_route_attached",
    "Whether the Gateways that are named lead to the gateway (--gateway-parent), with the reason: 1 or 0.",
    ["reason"],
    registry=REGISTRY,
)
PROVIDER_ANSWERING = Gauge(
    "modelyard_provider_answering",
    "1 while a provider's model answers, 0 while it counts as silent; absent where nobody has asked it.",
    ["provider", "model"],
    registry=REGISTRY,
)
PROVIDER_LIMITED = Gauge(
    "modelyard_provider_limited",
    "1 while a limit of a provider is used up, by what it counts.",
    ["provider", "limit"],
    registry=REGISTRY,
)
READINGS = Counter(
    "modelyard_gateway_readings",
    "Readings of the gateway's counters, by outcome.",
    ["outcome"],
    registry=REGISTRY,
)
CERTIFICATE_NOT_AFTER = Gauge(
    "modelyard_gateway_certificate_not_after_timestamp_seconds",
    "When the certificate that the gateway shows its clients ends, as Unix time.",
    CERTIFICATE,
    registry=REGISTRY,
)
CERTIFICATE_PROBLEM = Gauge(
    "modelyard_gateway_certificate_problem",
    "1 for what is wrong with the Secret of the gateway's certificate, as it was last read.",
    (*CERTIFICATE, "reason"),
    registry=REGISTRY,
)
XDS_CERTIFICATE_NOT_AFTER = Gauge(
    "modelyard_xds_certificate_not_after_timestamp_seconds",
    "When a certificate between operator and gateway ends, as Unix time.",
    CERTIFICATE,
    registry=REGISTRY,
)
SPEND_DOLLARS = Counter(
    "modelyard_spend_dollars",
    "US dollars since this process started, by what they were spent on: own accelerators as they are held, providers "
    "by token. What is gone goes with its series.",
    ["kind", "target"],
    registry=REGISTRY,
)
# Named after OpenCost's container_gpu_allocation and node_gpu_hourly_cost
# (https://opencost.io/docs/integrations/metrics), whose own names are left to it: its queries would mix both.
GPU_ALLOCATION = Gauge(
    "modelyard_gpu_allocation",
    "Accelerators that pods of a deployment hold.",
    DEPLOYMENT,
    registry=REGISTRY,
)
GPU_HOURLY_COST = Gauge(
    "modelyard_gpu_hourly_cost",
    "US dollars per hour of the accelerators that pods of a deployment hold, of those with a price.",
    DEPLOYMENT,
    registry=REGISTRY,
)
LEDGER_WRITES = Counter(
    "modelyard_ledger_writes",
    "Rounds of the ledger that wrote or failed to, by outcome.",
    ["outcome"],
    registry=REGISTRY,
)
BUDGET_SHARE = Gauge(
    "modelyard_budget_spent_ratio",
    "Share of a budget's amount that is spent in the present period.",
    ["budget"],
    registry=REGISTRY,
)
LIMITED_REQUESTS = Counter(
    "modelyard_limited_requests",
    "Requests of tenants that were refused with 429, by the limit that was used up.",
    ["tenant", "limit"],
    registry=REGISTRY,
)
LIMITED_TOKENS = Counter(
    "modelyard_limited_tokens",
    "Tokens that were counted against the limits of tenants.",
    ["tenant"],
    registry=REGISTRY,
)
WAKES = Counter("modelyard_wakes", "Wake signals of held requests.", registry=REGISTRY)
PLACEMENT_SECONDS = Histogram(
    "modelyard_placement_seconds",
    "Duration of one search for the placement of the fleet, made while a deployment may run in several ways.",
    registry=REGISTRY,
)
PLACEMENT_GAP = Gauge(
    "modelyard_placement_gap",
    "Distance of the last placement to the optimum, relative, at most.",
    registry=REGISTRY,
)
ENGINE_READINGS = Counter(
    "modelyard_engine_readings",
    "Readings of engines' own metrics, by outcome.",
    ["outcome"],
    registry=REGISTRY,
)
SPEED_FACTOR = Gauge(
    "modelyard_learned_speed_factor",
    "Latency that warm pods show, relative to what was worked out from the model and its accelerator.",
    VARIANT_LATENCY,
    registry=REGISTRY,
)
SPEED_UNCERTAINTY = Gauge(
    "modelyard_learned_speed_uncertainty",
    "Relative standard deviation of modelyard_learned_speed_factor.",
    VARIANT_LATENCY,
    registry=REGISTRY,
)
SPEED_ERROR = Gauge(
    "modelyard_learned_speed_error_ratio",
    "Mean relative distance of latencies that were read from those that had been learned before.",
    VARIANT_LATENCY,
    registry=REGISTRY,
)
REQUESTS_MISSED = Gauge(
    "modelyard_requests_missed_share",
    "Share of requests outside the objective, as engines counted them when they were last read.",
    DEPLOYMENT,
    registry=REGISTRY,
)


def observe_request(method: str, resource: str, status: int, seconds: float) -> None:
    """Count a request to the Kubernetes API."""
    API_REQUEST_SECONDS.labels(method, resource).observe(seconds)
    if not 200 <= status < 300:
        API_REQUEST_ERRORS.labels(method, resource, str(status)).inc()
