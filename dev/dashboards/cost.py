"""Spending and budgets."""

from dev.dashboards.panels import Dashboard, Panel, Query
from dev.dashboards.shared import BAD, IN, MODEL, NAMESPACE, stat

COST = Dashboard(
    "cost",
    "Modelyard / Cost and budgets",
    "US dollars: what is spent, on what, what a million tokens cost, and how budgets stand.",
    [
        (
            "Now",
            [
                stat(
                    "Accelerators per hour",
                    f"sum(modelyard_gpu_hourly_cost{{{IN}}}) or vector(0)",
                    "currencyUSD",
                ),
                stat(
                    "Accelerators per day",
                    f"sum(modelyard_gpu_hourly_cost{{{IN}}}) * 24 or vector(0)",
                    "currencyUSD",
                    description="If everything stays as it is.",
                ),
                stat(
                    "Spent in this time range",
                    "sum(increase(modelyard_spend_dollars_total[$__range]))",
                    "currencyUSD",
                    description="Own accelerators and providers. The ledger is exact: modelyard cost.",
                ),
                stat(
                    "Budgets exhausted", 'sum(modelyard_budget_state{state="hard"}) or vector(0)', steps=BAD
                ),
                stat(
                    "Budgets not known",
                    'sum(modelyard_budget_state{state="unknown"}) or vector(0)',
                    steps=BAD,
                ),
                stat(
                    "Spending is known until",
                    "time() - max(modelyard_spend_timestamp_seconds)",
                    "s",
                    steps=(("green", None), ("red", 60.0)),
                    description="Seconds ago.",
                ),
            ],
        ),
        (
            "Spending",
            [
                Panel(
                    "US dollars per hour by target",
                    [
                        Query(
                            "sum by (target) (rate(modelyard_spend_dollars_total[$__rate_interval])) * 3600",
                            "{{target}}",
                        )
                    ],
                    "currencyUSD",
                    stacked=True,
                    long_names=True,
                ),
                Panel(
                    "US dollars per hour held",
                    [Query(f"sum by (namespace, deployment) (modelyard_gpu_hourly_cost{{{IN}}})", MODEL)],
                    "currencyUSD",
                    stacked=True,
                    description="Accelerators, used or not.",
                ),
                Panel(
                    "US dollars per million tokens",
                    [
                        Query(
                            "max by (namespace, deployment) "
                            f"(modelyard_cost_dollars_per_million_tokens{{{IN}}})",
                            MODEL,
                        )
                    ],
                    "currencyUSD",
                    description="Of the last five minutes, idle accelerators included.",
                ),
                Panel(
                    "Accelerators held",
                    [Query(f"sum by (namespace, deployment) (modelyard_gpu_allocation{{{IN}}})", MODEL)],
                    stacked=True,
                ),
            ],
        ),
        (
            "Budgets",
            [
                Panel(
                    "Share spent",
                    [Query("max by (budget) (modelyard_budget_spent_ratio)", "{{budget}}")],
                    "percentunit",
                    kind="bargauge",
                    steps=(("green", None), ("orange", 0.8), ("red", 1.0)),
                    highest=1,
                ),
                Panel(
                    "Spent and amount",
                    [
                        Query("max by (budget) (modelyard_budget_spent_dollars)", "{{budget}}, spent"),
                        Query("max by (budget) (modelyard_budget_amount_dollars)", "{{budget}}, amount"),
                    ],
                    "currencyUSD",
                ),
                Panel(
                    "Limits that act",
                    [Query("max by (budget, state) (modelyard_budget_state)", "{{budget}} {{state}}")],
                    kind="state-timeline",
                    words={0: ("no", "green"), 1: ("yes", "orange")},
                ),
                Panel(
                    "Until the period ends",
                    [
                        Query(
                            "max by (budget) (modelyard_budget_resets_timestamp_seconds) - time()",
                            "{{budget}}",
                        )
                    ],
                    "s",
                    kind="bargauge",
                ),
            ],
        ),
        (
            "Routes of policy LowestCost",
            [
                Panel(
                    "What each target would cost per hour",
                    [
                        Query(
                            "max by (namespace, route, target) "
                            f"(modelyard_route_cost_dollars_per_hour{{{IN}}})",
                            "{{namespace}}/{{route}}: {{target}}",
                        )
                    ],
                    "currencyUSD",
                    long_names=True,
                ),
                Panel(
                    "Where requests go first",
                    [
                        Query(
                            f"max by (namespace, route, target) (modelyard_route_share{{{IN}}})",
                            "{{namespace}}/{{route}}: {{target}}",
                        )
                    ],
                    "percentunit",
                    highest=1,
                    long_names=True,
                ),
            ],
        ),
    ],
    [NAMESPACE],
)
