"""One model."""

from dev.dashboards.panels import Dashboard, Panel, Query
from dev.dashboards.shared import DEPLOYMENT, NAMESPACE_OF_ONE, ONE, YES_NO, events, stat

CONDITIONS = 'modelyard_condition{kind="LLMDeployment", namespace=~"$namespace", name=~"$deployment"}'
TOKENS = "count:tokens/s"
"""A unit of Grafana's making: `count:` shortens thousands and writes what follows."""
STATES = {0: ("False", "text"), 1: ("True", "text")}
"""Of conditions, some of which are good and some bad when they are True."""
ENVOY_ONE = 'deployment="$namespace/$deployment"'

ONE_MODEL = Dashboard(
    "model",
    "Modelyard / Model",
    "One LLMDeployment: is it answered, how many replicas and why, the load and its forecast, speed and cost.",
    [
        (
            "Now",
            [
                stat(
                    "Ready",
                    'min(modelyard_condition{kind="LLMDeployment", type="Ready", namespace=~"$namespace", '
                    'name=~"$deployment"})',
                    words=YES_NO,
                ),
                stat("Wanted replicas", f"max(modelyard_wanted_replicas{{{ONE}}})"),
                stat("Serving replicas", f'sum(modelyard_replicas{{{ONE}, state="serving"}})'),
                stat("Requests in progress", f"sum(modelyard_requests_in_progress{{{ONE}}})"),
                stat("Cost per hour", f"sum(modelyard_gpu_hourly_cost{{{ONE}}}) or vector(0)", "currencyUSD"),
                stat(
                    "Cost per 1M tokens",
                    f"max(modelyard_cost_dollars_per_million_tokens{{{ONE}}})",
                    "currencyUSD",
                ),
            ],
        ),
        (
            "Size",
            [
                Panel(
                    "Conditions",
                    [
                        Query(
                            'modelyard_condition{kind="LLMDeployment", namespace=~"$namespace", name=~"$deployment"}'
                        )
                    ],
                    kind="table",
                    hidden=("kind", "namespace", "name"),
                    renamed={"Value": "status"},
                    words=STATES,
                ),
                Panel(
                    "Replicas",
                    [
                        Query(f"sum by (state) (modelyard_replicas{{{ONE}}})", "{{state}}"),
                        Query(f"max(modelyard_wanted_replicas{{{ONE}}})", "wanted"),
                    ],
                ),
                Panel(
                    "Load and forecast",
                    [
                        Query(f"max(modelyard_offered_requests_per_second{{{ONE}}})", "offered"),
                        Query(
                            f"max(modelyard_forecast_requests_per_second{{{ONE}}})",
                            "expected in a start time",
                        ),
                        Query(
                            f"max(modelyard_planned_requests_per_second{{{ONE}}})",
                            "capacity of the decided size",
                        ),
                    ],
                    "reqps",
                ),
                Panel(
                    "Error of the forecast",
                    [Query(f"max(modelyard_forecast_error_ratio{{{ONE}}})", "error")],
                    "percentunit",
                    description="Relative standard deviation; headroom is kept for it.",
                ),
                Panel(
                    "Changes of size",
                    [events(f"modelyard_size_changes_total{{{ONE}}}", "reason")],
                    counted=True,
                    soft_max=1,
                ),
                Panel(
                    "Requests wait for a replica",
                    [Query(f"max(modelyard_held_seconds{{{ONE}}}) or vector(0)", "held")],
                    "s",
                    soft_max=1,
                ),
            ],
        ),
        (
            "Requests",
            [
                Panel(
                    "Answers by status",
                    [
                        Query(
                            f"sum by (code) (rate(envoy_modelyard_requests{{{ENVOY_ONE}}}[$__rate_interval]))",
                            "{{code}}",
                        )
                    ],
                    "reqps",
                    stacked=True,
                    description="0: the client left.",
                ),
                Panel(
                    "Tokens",
                    [
                        Query(
                            f"sum(rate(envoy_modelyard_prompt_tokens{{{ENVOY_ONE}}}[$__rate_interval]))",
                            "input",
                        ),
                        Query(
                            f"sum(rate(envoy_modelyard_completion_tokens{{{ENVOY_ONE}}}[$__rate_interval]))",
                            "output",
                        ),
                    ],
                    TOKENS,
                ),
                Panel(
                    "Requests by tenant",
                    [
                        Query(
                            # Without keys there is no tenant.
                            "label_replace(sum by (tenant) "
                            f"(rate(envoy_modelyard_requests{{{ENVOY_ONE}}}[$__rate_interval])), "
                            '"tenant", "anonymous", "tenant", "")',
                            "{{tenant}}",
                        )
                    ],
                    "reqps",
                    stacked=True,
                ),
                Panel(
                    "Requests outside the objective",
                    [Query(f"max(modelyard_requests_missed_share{{{ONE}}})", "missed")],
                    "percentunit",
                    soft_max=0.05,
                    absent="needs two minutes of warm pods",
                    description="As the engines count them; needs scaling.slo and two minutes of warm pods.",
                ),
            ],
        ),
        (
            "Speed that was learned",
            [
                Panel(
                    "Latency relative to what was worked out",
                    [
                        Query(
                            f"max by (variant, latency) (modelyard_learned_speed_factor{{{ONE}}})",
                            "{{variant}} {{latency}}",
                        )
                    ],
                    absent="needs two minutes of warm pods",
                    description="1: as worked out. Needs two minutes of warm pods.",
                ),
                Panel(
                    "Error of the learned speed",
                    [
                        Query(
                            f"max by (variant, latency) (modelyard_learned_speed_error_ratio{{{ONE}}})",
                            "{{variant}} {{latency}}",
                        )
                    ],
                    "percentunit",
                    absent="needs two minutes of warm pods",
                ),
            ],
        ),
    ],
    [NAMESPACE_OF_ONE, DEPLOYMENT],
)
