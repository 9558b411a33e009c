"""`modelyard explain`: the last decision, as the status of an LLMDeployment has it."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from typer.testing import CliRunner

from modelyard.api.meta import API_VERSION
from modelyard.cli.main import app

PATH = "/apis/modelyard.dev/v1alpha1/namespaces/team/llmdeployments/chat"

STATUS = {
    "observedGeneration": 3,
    "replicas": 3,
    "readyReplicas": 2,
    "model": "chat",
    "placement": {
        "class": "l4",
        "count": 1,
        "message": "1 x l4 ($0.8/h a replica): 180 requests a minute and replica, as declared",
        "variants": [
            {"class": "l4", "count": 1, "replicas": 2, "readyReplicas": 2, "deployment": "chat-abcde"},
            {
                "class": "l4",
                "count": 1,
                "purchase": "Spot",
                "replicas": 1,
                "readyReplicas": 0,
                "deployment": "chat-fghij",
            },
        ],
    },
    "cost": {"perHour": "1.9", "perMillionTokens": "0.0833"},
    "scaling": {
        "desiredReplicas": 3,
        "reason": "OfferedLoad",
        "message": "6.67 requests/s at 3.00 a replica, 80% used, need 3",
        "history": [
            {
                "time": "2026-01-01T10:00:00Z",
                "fromReplicas": 1,
                "toReplicas": 2,
                "reason": "OfferedLoad",
                "message": "4.00 requests/s at 3.00 a replica, 80% used, need 2",
            },
            {
                "time": "2026-01-01T10:05:00Z",
                "fromReplicas": 2,
                "toReplicas": 3,
                "reason": "OfferedLoad",
                "message": "6.67 requests/s at 3.00 a replica, 80% used, need 3",
            },
        ],
    },
    "conditions": [
        {
            "type": "Ready",
            "status": "True",
            "reason": "Serving",
            "message": "2 of 3 replicas serve",
            "lastTransitionTime": "2026-01-01T09:00:00Z",
        },
        {
            "type": "PlacementPreferred",
            "status": "False",
            "reason": "CapacityMissing",
            "message": "waits for 1 x l4 spot: no node has room",
            "lastTransitionTime": "2026-01-01T10:05:00Z",
        },
    ],
}

GOLDEN = """\
team/chat: hf://a/b, served as chat

size       3 (between 1 and 8); 2 of 3 pods serve
reason     OfferedLoad: 6.67 requests/s at 3.00 a replica, 80% used, need 3
numbers
  capacity per replica  3
  offered rate          6.67

runs on    1 x l4: 1 x l4 ($0.8/h a replica): 180 requests a minute and replica, as declared
  1 x l4       2 of 2 serve  chat-abcde
  1 x l4 spot  0 of 1 serve  chat-fghij
cost       $1.9/h, $0.0833 per million tokens

conditions
  Ready               True   Serving          since 2026-01-01T09:00:00Z  2 of 3 replicas serve
  PlacementPreferred  False  CapacityMissing  since 2026-01-01T10:05:00Z  waits for 1 x l4 spot: no node has room

history
  2026-01-01T10:00:00Z  1 -> 2  OfferedLoad  4.00 requests/s at 3.00 a replica, 80% used, need 2
  2026-01-01T10:05:00Z  2 -> 3  OfferedLoad  6.67 requests/s at 3.00 a replica, 80% used, need 3
"""


def deployment(status=None, **spec):
    size = {} if "replicas" in spec else {"scaling": {"min": 1, "max": 8}}
    return {
        "apiVersion": API_VERSION,
        "kind": "LLMDeployment",
        "metadata": {
            "name": "chat",
            "namespace": "team",
            "uid": "u",
            "resourceVersion": "1",
            "generation": 3,
        },
        "spec": {"model": {"source": "hf://a/b"}, **size, **spec},
        "status": STATUS if status is None else status,
    }


@contextmanager
def serve(folder, body, status=200, lists=None):
    """Answer for one object and for lists, by plural; yields a kubeconfig, and method and path of every request.

    A list that is a number is answered with that status.
    """
    seen = []
    answers = {"pods": [], "events": [], "llmdeployments": [body], **(lists or {})}

    class Handler(BaseHTTPRequestHandler):
        def _answer(self):
            path = self.path.partition("?")[0]
            seen.append(f"{self.command} {path}")
            listed = answers.get(path.rpartition("/")[2])
            found = path == PATH
            code = (
                status if found else listed if isinstance(listed, int) else 200 if listed is not None else 404
            )
            shown = body if found else {"metadata": {}, "items": listed}
            payload = json.dumps(shown if code == 200 else {"kind": "Status", "message": "no"}).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _answer  # noqa: N815

        def log_message(self, format, *args):  # noqa: A002
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    path = folder / "kubeconfig"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "u", "user": {}}],
    }
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    try:
        yield path, seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def explain(folder, body, *options, name="chat", kind="llmdep", status=200, lists=None):
    with serve(folder, body, status, lists) as (kubeconfig, seen):
        arguments = ["explain", kind, name, "-n", "team", "--kubeconfig", str(kubeconfig), *options]
        result = CliRunner().invoke(app, arguments)
    return result, seen


def with_numbers():
    scaling = {**STATUS["scaling"], "numbers": {"offeredRate": "6.67", "capacityPerReplica": "3"}}
    return deployment({**STATUS, "scaling": scaling})


def test_the_whole_text(tmp_path):
    result, _ = explain(tmp_path, with_numbers())
    assert (result.exit_code, result.stdout) == (0, GOLDEN)


def test_it_reads_the_object_its_pods_and_events_and_writes_nothing(tmp_path):
    _, seen = explain(tmp_path, deployment())
    core = "/api/v1/namespaces/team"
    assert seen == [f"GET {PATH}", f"GET {core}/pods", f"GET {core}/events"]


def pod(name, *, ready, state=None, last=None, **spec):
    engine = {"name": "engine", "restartCount": 2, "state": state or {}, "lastState": last or {}}
    return {
        "metadata": {
            "name": name,
            "namespace": "team",
            "uid": name,
            "creationTimestamp": "2026-01-01T10:00:00Z",
            "labels": {"modelyard.dev/deployment": "chat"},
        },
        "spec": spec,
        "status": {
            "phase": "Running" if spec else "Pending",
            "conditions": [
                {"type": "Ready", "status": str(ready), "lastTransitionTime": "2026-01-01T10:00:00Z"},
                *([] if spec else [UNSCHEDULABLE]),
            ],
            "containerStatuses": [engine] if spec else [],
        },
    }


UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/3 nodes have room",
}
LOOPS = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}}
KILLED = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}


def event(name, about, kind="Pod", count=1, time="2026-01-01T10:00:00Z"):
    return {
        "metadata": {"name": name, "creationTimestamp": "2026-01-01T09:00:00Z"},
        "involvedObject": {"kind": kind, "name": about, "uid": about},
        "type": "Warning",
        "reason": "BackOff",
        "message": f"{name}\x1b[2J",
        "count": count,
        "lastTimestamp": time,
    }


def test_pods_and_events_tell_what_is_wrong(tmp_path):
    lists = {
        "pods": [
            pod("chat-a", ready=True, nodeName="n1"),
            pod("chat-b", ready=False, state=LOOPS, last=KILLED, nodeName="n2"),
            pod("chat-c", ready=False),
        ],
        "events": [
            event("late", "chat-b", count=7, time="2026-01-01T10:05:00Z"),
            event("early", "u", kind="LLMDeployment"),
            event("strange", "other"),
        ],
    }
    result, _ = explain(tmp_path, deployment(), lists=lists)
    told = result.stdout.splitlines()
    begin = told.index("pods")
    assert told[begin + 1 : begin + 4] == [
        "  chat-a  serves     n1       2 restarts",
        f"  chat-b  not ready  n2       2 restarts  {ENDED}",
        "  chat-c  pending    no node  0 restarts  Unschedulable: 0/3 nodes have room",
    ]
    begin = told.index("events")
    assert [line.split() for line in told[begin + 1 :]] == [
        ["2026-01-01T10:00:00Z", "Warning", "BackOff", "LLMDeployment/u", "early", "[2J"],
        ["2026-01-01T10:05:00Z", "Warning", "BackOff", "Pod/chat-b", "late", "[2J", "(7", "times)"],
    ]


ENDED = "CrashLoopBackOff: back-off 5m0s; ended before: OOMKilled, exit code 137"


def test_without_rights_to_pods_the_decision_is_told(tmp_path):
    result, _ = explain(tmp_path, deployment(), lists={"pods": 403, "events": 403})
    assert result.exit_code == 0
    assert "need 3" in result.stdout
    assert "not shown  pods cannot be read: no" in result.stdout
    assert "not shown  Events cannot be read: no" in result.stdout


def test_a_status_without_numbers_is_explained_too(tmp_path):
    result, _ = explain(tmp_path, deployment())
    assert result.exit_code == 0
    assert "numbers" not in result.stdout
    assert "need 3" in result.stdout


def test_json_and_yaml_have_the_same_fields(tmp_path):
    report = json.loads(explain(tmp_path, with_numbers(), "-o", "json")[0].stdout)
    assert report == yaml.safe_load(explain(tmp_path, with_numbers(), "-o", "yaml")[0].stdout)
    assert report["size"] == {
        "replicas": 3,
        "reason": "OfferedLoad",
        "message": STATUS["scaling"]["message"],
        "numbers": {"offeredRate": "6.67", "capacityPerReplica": "3"},
    }
    assert report["history"] == STATUS["scaling"]["history"]
    assert report["cost"] == STATUS["cost"]
    assert [item["type"] for item in report["conditions"]] == ["Ready", "PlacementPreferred"]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({}, "3 (between 1 and 8)"),
        ({"replicas": 3}, "3 (spec.replicas)"),
        ({"suspend": True}, "3 (suspend is true)"),
        ({"scaling": {"max": 8, "mode": "Advise"}}, "3 (advice only, between 1 and 8)"),
        (
            {"scaling": {"max": 8, "actuator": "External"}},
            "3 (an outside autoscaler sets it, between 1 and 8)",
        ),
    ],
)
def test_who_sets_the_size(tmp_path, spec, told):
    assert told in explain(tmp_path, deployment(**spec))[0].stdout


def test_before_the_first_decision(tmp_path):
    result, _ = explain(tmp_path, deployment({}))
    assert result.exit_code == 0
    assert "no decision yet" in result.stdout
    assert "has not been decided about yet" in result.stdout


def test_control_characters_do_not_reach_the_terminal(tmp_path):
    scaling = {**STATUS["scaling"], "message": "a\x1b[2Jb\nc"}
    result, _ = explain(tmp_path, deployment({**STATUS, "scaling": scaling}))
    assert "\x1b" not in result.stdout
    assert "reason     OfferedLoad: a [2Jb c\n" in result.stdout


def test_no_word_of_an_event_reaches_the_terminal_as_it_is(tmp_path):
    hostile = {**event("e", "chat-a"), "type": "Warning\x1b]52;c;eA==\x07", "reason": "Back\x1b[2JOff"}
    lists = {"pods": [pod("chat-a", ready=True)], "events": [hostile]}
    result, _ = explain(tmp_path, deployment(), lists=lists)
    assert "Back [2JOff" in result.stdout
    assert not {"\x1b", "\x07"} & set(result.stdout)


@pytest.mark.parametrize("kind", ["llmdep", "LLMDeployment", "llmdeployments"])
def test_every_name_of_the_kind(tmp_path, kind):
    assert explain(tmp_path, deployment(), kind=kind)[0].exit_code == 0


def test_another_kind_is_refused(tmp_path):
    result, seen = explain(tmp_path, deployment(), kind="pod")
    assert (result.exit_code, seen) == (2, [])


def test_an_object_that_does_not_exist(tmp_path):
    result, _ = explain(tmp_path, deployment(), name="gone")
    assert result.exit_code == 1
    assert "no LLMDeployment gone in namespace team: name another namespace with -n" in result.stderr
    near, _ = explain(tmp_path, deployment(), name="caht")
    assert near.stderr == "Error: no LLMDeployment caht in namespace team: did you mean team/chat?\n"


def test_a_cluster_that_refuses(tmp_path):
    result, _ = explain(tmp_path, deployment(), status=403)
    assert result.exit_code == 1
    assert "the cluster cannot be read" in result.stderr


def test_no_cluster_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    result = CliRunner().invoke(app, ["explain", "llmdep", "chat"])
    assert result.exit_code == 2
    assert "give --kubeconfig, or set KUBECONFIG" in result.stderr


def test_an_object_of_another_version(tmp_path):
    result, _ = explain(tmp_path, {**deployment(), "spec": {"model": 3}})
    assert result.exit_code == 1
    assert "team/chat cannot be read: spec.model" in result.stderr
