"""Each alert fires where it should and is quiet where it should be, as Prometheus' own test tool evaluates it."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.observability.conftest import ALERTS

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks.md"
RULES = [
    rule
    for file in ALERTS
    for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
MODEL = 'kind="LLMDeployment", namespace="team", name="llama"'
REQUESTS = 'envoy_modelyard_requests{route="team/llama"'
ACTIVE = {'modelyard_leader{job="op", instance="a"}': "1+0x600"}
OWN_LEADER = 'modelyard_leader{namespace="modelyard-system", job="modelyard-operator"'
OTHER_LEADER = {'modelyard_leader{namespace="other", job="modelyard-operator", instance="c"}': "1+0x600"}
"""Of another installation, whose release may have the same name."""


@dataclass
class Case:
    """Series by name, in promtool's notation with one value a minute; when to look, in minutes."""

    bad: dict[str, str]
    good: dict[str, str]
    at: int


def gauge(name: str, bad: str, good: str, at: int, **more: str) -> Case:
    """Return a case of one gauge that stays as it is."""
    return Case({name: f"{bad}+0x600", **more}, {name: f"{good}+0x600", **more}, at)


def condition(kind: str, type_: str, bad: int, reason: str = "Loading", at: int = 20) -> Case:
    labels = f'kind="{kind}", namespace="team", name="llama", type="{type_}", reason="{reason}"'
    return gauge(f"modelyard_condition{{{labels}}}", str(bad), str(1 - bad), at)


def state(name: str, at: int = 10) -> Case:
    return gauge(f'modelyard_budget_state{{budget="all", state="{name}"}}', "1", "0", at)


def age(name: str, at: int = 15) -> Case:
    """Return a case of a time that stands still. Prometheus' test clock begins at 0."""
    series = f'{name}{{job="op", instance="a"}}'
    return Case({series: "0+0x600", **ACTIVE}, {series: "0+60x600", **ACTIVE}, at)


CASES = {
    "ModelyardOperatorDown": Case(
        {f'{OWN_LEADER}, instance="b"}}': "0+0x600", **OTHER_LEADER},
        {
            f'{OWN_LEADER}, instance="a"}}': "1+0x600",
            'modelyard_leader{namespace="other", instance="c"}': "0+0x600",
        },
        10,
    ),
    "ModelyardTwoOperatorsActive": Case(
        {**ACTIVE, 'modelyard_leader{job="op", instance="b"}': "1+0x600"},
        {
            **ACTIVE,
            'modelyard_leader{job="op", instance="b"}': "0+0x600",
            # Another installation: its release may have the same name.
            'modelyard_leader{job="op", namespace="other", instance="c"}': "1+0x600",
        },
        5,
    ),
    "ModelyardWatchStale": gauge('modelyard_watch_age_seconds{resource="llmroutes"}', "400", "60", 5),
    "ModelyardQueueOld": gauge("modelyard_queue_oldest_seconds", "61", "5", 10),
    "ModelyardWorkFailing": gauge("modelyard_queue_failing", "2", "0", 20),
    "ModelyardWritesFailing": Case(
        {'modelyard_api_request_errors_total{method="PATCH", resource="deployments", code="403"}': "0+3x600"},
        {
            'modelyard_api_request_errors_total{method="PATCH", resource="deployments", code="403"}': "3+0x600",
            'modelyard_api_request_errors_total{method="PUT", resource="configmaps", code="409"}': "0+3x600",
            'modelyard_api_request_errors_total{method="GET", resource="secrets", code="403"}': "0+3x600",
        },
        20,
    ),
    "ModelyardAppliesSlow": Case(
        {
            'modelyard_api_request_seconds_bucket{method="PATCH", le="2.5"}': "0+1x600",
            'modelyard_api_request_seconds_bucket{method="PATCH", le="5"}': "0+60x600",
            'modelyard_api_request_seconds_bucket{method="PATCH", le="+Inf"}': "0+60x600",
        },
        {
            'modelyard_api_request_seconds_bucket{method="PATCH", le="2.5"}': "0+60x600",
            'modelyard_api_request_seconds_bucket{method="PATCH", le="5"}': "0+60x600",
            'modelyard_api_request_seconds_bucket{method="PATCH", le="+Inf"}': "0+60x600",
        },
        40,
    ),
    "ModelyardEventLoopLate": gauge("modelyard_event_loop_lag_seconds", "3", "0.01", 10),
    "ModelyardTableFailing": gauge('modelyard_table_failing{job="op", instance="a"}', "1", "0", 5),
    "ModelyardObjectUnreadable": gauge('modelyard_unreadable_objects{kind="LLMRoute"}', "1", "0", 10),
    "ModelyardModelNotReady": condition("LLMDeployment", "Ready", 0),
    "ModelyardModelStalled": condition("LLMDeployment", "Stalled", 1, "DoesNotFit"),
    "ModelyardRouteNotReady": condition("LLMRoute", "Ready", 0, "TargetNotFound"),
    "ModelyardRequestsHeldLong": Case(
        {'modelyard_held_seconds{namespace="team", deployment="llama"}': "0+60x600"},
        {'modelyard_held_seconds{namespace="team", deployment="llama"}': "0 60 120 _x600"},
        6,
    ),
    "ModelyardHoldTimeouts": Case(
        {f'{REQUESTS}, deployment="", code="503"}}': "0 0 3+0x600"},
        {f'{REQUESTS}, deployment="team/llama", code="503"}}': "0 0 3+0x600"},
        5,
    ),
    "ModelyardCapacityMissing": condition("LLMDeployment", "PlacementPreferred", 0, "CapacityMissing", 40),
    "ModelyardObjectiveMissed": Case(
        {
            'modelyard_requests_missed_share{namespace="team", deployment="llama"}': "0.08+0x600",
            'modelyard_offered_requests_per_second{namespace="team", deployment="llama"}': "5+0x600",
        },
        {
            'modelyard_requests_missed_share{namespace="team", deployment="llama"}': "0.004+0x600",
            'modelyard_offered_requests_per_second{namespace="team", deployment="llama"}': "5+0x600",
            # One slow request, and none since.
            'modelyard_requests_missed_share{namespace="team", deployment="idle"}': "1+0x600",
            'modelyard_offered_requests_per_second{namespace="team", deployment="idle"}': "0+0x600",
        },
        20,
    ),
    "ModelyardForecastOff": gauge(
        'modelyard_forecast_error_ratio{namespace="team", deployment="llama"}',
        "0.6",
        "0.2",
        70,
        **{'modelyard_offered_requests_per_second{namespace="team", deployment="llama"}': "5+0x600"},
    ),
    "ModelyardSpeedOff": gauge(
        'modelyard_learned_speed_error_ratio{namespace="team", deployment="llama", variant="l4"}',
        "0.7",
        "0.1",
        70,
    ),
    "ModelyardBudgetSoftLimit": state("soft"),
    "ModelyardBudgetExhausted": state("hard"),
    "ModelyardBudgetUnknown": state("unknown"),
    "ModelyardSpendStale": age("modelyard_spend_timestamp_seconds"),
    "ModelyardLedgerNotWritten": Case(
        {
            'modelyard_ledger_writes_total{job="op", outcome="failed"}': "0+6x600",
            # That another installation's is written does not help.
            'modelyard_ledger_writes_total{job="op", namespace="other", outcome="written"}': "0+6x600",
        },
        {
            'modelyard_ledger_writes_total{job="op", outcome="conflict"}': "0+6x600",
            'modelyard_ledger_writes_total{job="op", outcome="written"}': "0+1x600",
        },
        30,
    ),
    "ModelyardNoGateway": gauge('modelyard_gateway_nodes{job="op", instance="a"}', "0", "2", 10, **ACTIVE),
    "ModelyardGatewayNotRead": age("modelyard_gateway_reading_timestamp_seconds"),
    "ModelyardConfigurationRejected": gauge("modelyard_gateway_rejections", "1", "0", 5),
    "ModelyardErrors": Case(
        {f'{REQUESTS}, code="200"}}': "0+90x600", f'{REQUESTS}, code="502"}}': "0+10x600"},
        {f'{REQUESTS}, code="200"}}': "0+99x600", f'{REQUESTS}, code="502"}}': "0+1x600"},
        15,
    ),
    "ModelyardProviderFailing": Case(
        {
            'envoy_modelyard_requests{deployment="provider:acme/large", code="200"}': "0+7x600",
            'envoy_modelyard_requests{deployment="provider:acme/large", code="401"}': "0+3x600",
        },
        {
            'envoy_modelyard_requests{deployment="provider:acme/large", code="200"}': "0+9x600",
            'envoy_modelyard_requests{deployment="provider:acme/large", code="500"}': "0+1x600",
            'envoy_modelyard_requests{deployment="team/llama", code="500"}': "0+9x600",
        },
        15,
    ),
    "ModelyardProviderNotReady": condition("LLMProvider", "Ready", 0, "SecretNotFound"),
    "ModelyardCertificate": Case(
        {'modelyard_gateway_certificate_not_after_timestamp_seconds{name="tls"}': f"{3 * 86400}+0x600"},
        {
            'modelyard_gateway_certificate_not_after_timestamp_seconds{name="tls"}': f"{30 * 86400}+0x600",
            'modelyard_xds_certificate_not_after_timestamp_seconds{name="client"}': f"{30 * 86400}+0x600",
        },
        20,
    ),
}


MORE = (
    (
        "ModelyardCertificate",
        Case(
            {'modelyard_xds_certificate_not_after_timestamp_seconds{name="client"}': f"{3 * 86400}+0x600"},
            {},
            20,
        ),
    ),
    # Nothing is left that could say 0, and the other installation does well; and the Lease was handed over.
    (
        "ModelyardOperatorDown",
        Case(
            {f'{OWN_LEADER}, instance="a"}}': "1 1 _x600", **OTHER_LEADER},
            {
                f'{OWN_LEADER}, instance="a"}}': "1 1 1 _x600",
                f'{OWN_LEADER}, instance="b"}}': "0 0 0 0 1+0x600",
            },
            15,
        ),
    ),
    # Nobody was ever scraped.
    ("ModelyardOperatorDown", Case(OTHER_LEADER, {f'{OWN_LEADER}, instance="a"}}': "1+0x600"}, 10)),
)
"""Alerts that have a second cause."""


def test_promtool_accepts_the_rules(programs: Path) -> None:
    command = [programs / "promtool", "check", "rules", "--lint=all", "--lint-fatal", *ALERTS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case() -> None:
    assert {rule["alert"] for rule in RULES} == CASES.keys()


def test_every_series_of_a_case_is_one_that_its_alert_reads() -> None:
    """A name that no alert reads makes a case that says nothing."""
    expressions = {rule["alert"]: rule["expr"] for rule in RULES}
    for alert, case in CASES.items():
        names = {series.partition("{")[0] for series in (*case.bad, *case.good)}
        assert [name for name in names if name not in expressions[alert]] == [], alert


def test_alerts_fire_and_are_quiet(programs: Path, tmp_path: Path) -> None:
    """All cases in one run: each is a database of its own, so they do not see each other."""
    tests = []
    for alert, case in (*CASES.items(), *MORE):
        for name, series, fires in (("bad", case.bad, True), ("good", case.good, False)):
            check = {
                "expr": f'count by (alertname) (ALERTS{{alertname="{alert}", alertstate="firing"}})',
                "eval_time": f"{case.at}m",
                "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1}] if fires else [],
            }
            tests.append(
                {
                    "name": f"{alert}, {name}",
                    "interval": "1m",
                    "input_series": [{"series": key, "values": values} for key, values in series.items()],
                    "promql_expr_test": [check],
                }
            )
    file = tmp_path / "alerts.yaml"
    content = {"rule_files": [str(path) for path in ALERTS], "evaluation_interval": "1m", "tests": tests}
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    command = [programs / "promtool", "test", "rules", file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_says_what_to_do(rule: dict) -> None:
    notes = rule["annotations"]
    assert notes.keys() == {"summary", "description", "runbook_url"}
    page, _, anchor = notes["runbook_url"].partition("#")
    headings = [
        line[4:] for line in RUNBOOKS.read_text(encoding="utf-8").splitlines() if line.startswith("### ")
    ]
    assert (page, anchor) == ("docs/runbooks.md", rule["alert"].lower())
    assert rule["alert"] in headings
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}


def test_commands_name_what_the_chart_makes() -> None:
    base = RUNBOOKS.parents[1] / "deploy" / "base"
    made = {
        f"{item['kind']}/{item['metadata']['name']}"
        for file in base.glob("*.yaml")
        for item in yaml.safe_load_all(file.read_text(encoding="utf-8"))
        if "metadata" in item
    }
    for page in (RUNBOOKS, RUNBOOKS.with_name("observability.md"), RUNBOOKS.with_name("web.md")):
        text = page.read_text(encoding="utf-8")
        assert {f"Deployment/{name}" for name in re.findall(r"deploy(?:ment)?/([a-z-]+)", text)} <= made
        accounts = re.findall(r"system:serviceaccount:modelyard-system:([a-z-]+)", text)
        assert {f"ServiceAccount/{name}" for name in accounts} <= made


def test_no_runbook_without_an_alert() -> None:
    headings = [
        line[4:] for line in RUNBOOKS.read_text(encoding="utf-8").splitlines() if line.startswith("### ")
    ]
    assert sorted(headings) == sorted(rule["alert"] for rule in RULES)
