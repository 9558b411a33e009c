"""`modelyard logs`: its parts. That it reads real logs is shown in tests/cluster."""

import pytest
from typer.testing import CliRunner

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.cli.logs import clean_line
from modelyard.cli.logsread import Line, LogOptions, decisions, find_starts, merge, split_time
from modelyard.cli.main import app
from tests.unit.cli.clusterstub import serve_lists
from tests.unit.cli.test_status import LISTS


def run(tmp_path, *options, lists=None):
    with serve_lists(tmp_path, {**LISTS, "pods": [], **(lists or {})}) as (kubeconfig, seen):
        arguments = ["logs", "llmdep", "--kubeconfig", str(kubeconfig), *options]
        result = CliRunner().invoke(app, arguments)
    return result, seen


def test_a_time_is_taken_off_with_its_fraction():
    line = split_time("pod", "2026-01-01T00:00:00.123456789Z loads  it")
    assert line == Line("pod", "loads  it", 1_767_225_600.123456)
    zoned = split_time("pod", "2026-01-01T02:00:00.5+02:00 x")
    assert zoned == Line("pod", "x", 1_767_225_600.5)
    assert split_time("pod", "2026-01-01T00:00:00Z ") == Line("pod", "", 1_767_225_600.0)


def test_a_line_without_a_time_is_left_as_it_is():
    for text in ("Traceback (most recent", "20260101 x", "2026-01-01T00:00:00 x", ""):
        assert split_time("pod", text) == Line("pod", text)


def test_lines_come_in_the_order_of_time_and_those_without_stay_where_they_were():
    first = [Line("a", "1", 1.0), Line("a", "1b"), Line("a", "4", 4.0)]
    second = [Line("event", "2", 2.0)]
    assert [line.text for line in merge([first, second])] == ["1", "1b", "2", "4"]


def test_decisions_are_changes_of_size():
    event = {
        "time": "2026-01-01T00:00:00Z",
        "fromReplicas": 1,
        "toReplicas": 3,
        "reason": "OfferedLoad",
        "message": "need 3",
    }
    made = LLMDeployment.model_validate(
        {
            "metadata": {"name": "chat", "namespace": "team"},
            "spec": {"model": {"source": "hf://a/b"}, "replicas": 1},
            "status": {"scaling": {"desiredReplicas": 3, "reason": "OfferedLoad", "history": [event]}},
        }
    )
    assert decisions(made) == [Line("decision", "1 -> 3 replicas: OfferedLoad: need 3", 1_767_225_600.0)]


@pytest.mark.parametrize(
    ("statuses", "starts"),
    [
        ([], None),
        (
            [{"name": "engine", "restartCount": 0, "state": {"waiting": {"reason": "ContainerCreating"}}}],
            None,
        ),
        ([{"name": "engine", "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}], 2),
        ([{"name": "engine", "restartCount": 1, "state": {"running": {}}}], 1),
        ([{"name": "other", "restartCount": 1, "state": {"running": {}}}], None),
    ],
)
def test_starts_of_a_container(statuses, starts):
    assert find_starts({"status": {"containerStatuses": statuses}}, "engine") == starts


def test_the_parameters_of_a_request():
    asked = LogOptions("engine", previous=True, tail=5, since=60, timestamps=True).query(follow=False)
    assert asked == {
        "container": "engine",
        "previous": "true",
        "tailLines": "5",
        "sinceSeconds": "60",
        "timestamps": "true",
    }
    assert LogOptions().query(follow=True) == {"container": "engine", "follow": "true"}


def test_a_line_keeps_its_spaces_and_loses_what_moves_the_cursor():
    assert clean_line("a  b\tc\x1b[2J\u202ed") == "a  b\tc [2J d"


def test_near_names_are_told(tmp_path):
    result, _ = run(tmp_path, "caht", "-n", "team")
    assert (result.exit_code, result.stdout) == (1, "")
    told = "Error: no LLMDeployment caht in namespace team: did you mean team/chat?\n"
    assert result.stderr == told


def test_without_pods_it_says_why(tmp_path):
    result, _ = run(tmp_path, "team/huge")
    assert result.exit_code == 0
    assert "it has no pods: DoesNotFit: weights of 140 GB" in result.stderr


def test_it_only_reads(tmp_path):
    _, seen = run(tmp_path, "team/chat", "--events")
    assert {line.partition(" ")[0] for line in seen} == {"GET"}


@pytest.mark.parametrize(
    "options", [("chat", "-f", "--previous"), ("chat", "--since", "soon"), ("chat", "--tail", "-1")]
)
def test_options_that_are_wrong(tmp_path, options):
    result, seen = run(tmp_path, *options)
    assert (result.exit_code, seen) == (2, [])


def test_another_kind_has_no_logs(tmp_path):
    result = CliRunner().invoke(app, ["logs", "llmroute", "chat"])
    assert result.exit_code == 2
