"""The parts of the local nodes that need no cluster."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from dev.nodes.addresses import AddressRange
from dev.nodes.container import RestartBackoff
from dev.nodes.environment import ContainerConfigError, expand, pod_field
from dev.nodes.gpus import GpuLedger, GpuShortageError
from dev.nodes.images import (
    ContainerStartError,
    UnknownImageError,
    find_image,
    mount_rewriter,
    parse_environment_rule,
    served_name,
    server_command,
)
from dev.nodes.llamacpp import model_file, parse_arguments
from dev.nodes.probes import Probe, UnsupportedProbeError, outcomes, read_probe
from dev.nodes.status import ContainerView, PodView, Running, Terminated, pod_phase, pod_status

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LATER = datetime(2026, 1, 2, 3, 5, 0, tzinfo=UTC)
ADDRESS = ("127.1.0.1", 80)


class FakeTime:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


async def _run_probe(probe: Probe, results: str, seconds_per_check: float = 0.0) -> tuple[str, list[float]]:
    """Feed results (`+` and `-`) to a probe; return its outcomes and when checks began."""
    time = FakeTime()
    left = list(results)
    begun: list[float] = []

    async def check(_: Probe) -> bool:
        if not left:
            raise EOFError
        begun.append(time.now - 100)
        time.now += seconds_per_check
        return left.pop(0) == "+"

    seen = ""
    try:
        async for healthy in outcomes(probe, check, clock=time, sleep=time.sleep):
            seen += "+" if healthy else "-"
    except EOFError:
        return seen, begun
    raise AssertionError("a probe ended by itself")


@pytest.mark.parametrize(
    ("results", "expected"),
    [("---", "-"), ("--+", "+"), ("--+--", "+"), ("+---", "+-"), ("-----", "---"), ("--+---", "+-")],
)
async def test_probe_needs_failures_in_a_row(results: str, expected: str) -> None:
    seen, _ = await _run_probe(Probe(None, ADDRESS, failure_threshold=3), results)
    assert seen == expected


async def test_probe_needs_successes_in_a_row() -> None:
    seen, _ = await _run_probe(Probe(None, ADDRESS, success_threshold=2), "+-++")
    assert seen == "+"


@pytest.mark.parametrize(("check_seconds", "begun"), [(0.0, [3, 4, 5]), (0.25, [3, 4, 5]), (1.5, [3, 5, 7])])
async def test_probe_keeps_to_whole_periods_from_its_initial_delay(
    check_seconds: float, begun: list[float]
) -> None:
    probe = Probe(None, ADDRESS, initial_delay=3, period=1)
    assert (await _run_probe(probe, "+++", check_seconds))[1] == begun


def test_probe_port_by_name_and_defaults() -> None:
    container = {"name": "c", "ports": [{"name": "http", "containerPort": 8000}]}
    probe = read_probe({"httpGet": {"path": "/health", "port": "http"}}, container, "127.1.0.1")
    assert probe is not None
    assert probe.url == "http://127.1.0.1:8000/health"
    assert (probe.period, probe.timeout, probe.success_threshold, probe.failure_threshold) == (10, 1, 1, 3)
    with pytest.raises(UnsupportedProbeError, match="no port named 'grpc'"):
        read_probe({"tcpSocket": {"port": "grpc"}}, container, "127.1.0.1")
    with pytest.raises(UnsupportedProbeError, match="exec"):
        read_probe({"exec": {"command": ["true"]}}, container, "127.1.0.1")


def test_back_off_doubles_to_its_maximum_after_a_free_restart() -> None:
    assert [RestartBackoff().pause(n) for n in range(8)] == [0, 10, 20, 40, 80, 160, 300, 300]


def test_agents_on_one_machine_have_different_ranges(tmp_path: Path) -> None:
    held = [AddressRange(tmp_path) for _ in range(20)]
    assert len({str(each) for each in held}) == len(held)
    for each in held:
        each.close()


def test_addresses_are_unique_while_held_and_rest_when_released(tmp_path: Path) -> None:
    addresses = AddressRange(tmp_path)
    first, second = addresses.take(), addresses.take()
    addresses.release(first)
    assert len({first, second, addresses.take()}) == 3
    addresses.close()


def test_gpus_are_given_whole_or_not_at_all() -> None:
    ledger = GpuLedger("node", 4)
    first = ledger.allot("a", 3)
    with pytest.raises(GpuShortageError, match="Requested: 2, Available: 1"):
        ledger.allot("b", 2)
    assert set(ledger.held()) == set(first)
    ledger.release("a")
    assert len(ledger.allot("b", 4)) == 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(A)", "x1y1"),
        ("$$(A)", "$(A)"),
        ("$(MISSING)", "$(MISSING)"),
        ("$A", "$A"),
        ("$$", "$"),
    ],
)
def test_expansion(text: str, expected: str) -> None:
    assert expand(text, {"A": "1"}) == expected


def test_pod_fields() -> None:
    pod = {"metadata": {"name": "a", "labels": {"x/y": "z"}}, "spec": {}, "status": {"podIPs": [{"ip": "i"}]}}
    assert pod_field(pod, "metadata.name") == "a"
    assert pod_field(pod, "metadata.labels['x/y']") == "z"
    assert pod_field(pod, "status.podIPs") == "i"
    with pytest.raises(ContainerConfigError):
        pod_field(pod, "metadata.labels")


@pytest.mark.parametrize(
    ("image", "module"),
    [
        ("vllm/vllm-openai:v0.32.0", "dev.standin"),
        ("vllm/vllm-openai@sha256:abc", "dev.standin"),
        ("mirror.example:5000/hub/vllm/vllm-openai:v0.32.0@sha256:abc", "dev.standin"),
        ("ghcr.io/ggml-org/llama.cpp:server", "dev.nodes.llamacpp"),
        ("ghcr.io/ggml-org/llama.cpp:server-cuda-b7000", "dev.nodes.llamacpp"),
    ],
)
def test_images_that_run(image: str, module: str) -> None:
    assert find_image(image).module == module


@pytest.mark.parametrize("image", ["nginx", "ghcr.io/ggml-org/llama.cpp:full", "vllm/vllm-openai-x:v1"])
def test_images_that_do_not(image: str) -> None:
    with pytest.raises(UnknownImageError):
        find_image(image)


def test_command_line_keeps_the_arguments_and_sets_the_host() -> None:
    image = find_image("vllm/vllm-openai:v0.32.0")
    arguments = image.arguments(["vllm", "serve"], ["example/m", "--host", "0.0.0.0", "--port=8000"])
    command = server_command(image, arguments, "127.5.0.1")
    assert command[1:] == ["-m", "dev.standin", "example/m", "--port=8000", "--host", "127.5.0.1"]
    with pytest.raises(ContainerStartError):
        image.arguments(["sleep"], ["1"])


def test_served_name() -> None:
    vllm = find_image("vllm/vllm-openai:v1")
    assert served_name(vllm, ["--model", "org/m", "--served-model-name", "a", "b"]) == "a"
    assert served_name(vllm, ["--model=org/m"]) == "org/m"
    assert served_name(vllm, []) is None


def test_environment_rules() -> None:
    rule = parse_environment_rule("model=org/llama:8b:STANDIN_PROFILE=l4-8b")
    assert (rule.selects, rule.value, rule.variables) == (
        "model",
        "org/llama:8b",
        {"STANDIN_PROFILE": "l4-8b"},
    )
    assert rule.applies(node_class="cpu", model="org/llama:8b", image="i")
    assert not rule.applies(node_class="cpu", model="llama", image="i")
    assert parse_environment_rule("class=l4:A=1").applies(node_class="l4", model=None, image="i")
    assert parse_environment_rule("A=1").applies(node_class="cpu", model=None, image="i")
    with pytest.raises(ValueError, match="is not"):
        parse_environment_rule("no variable")


def test_paths_under_mounts_are_rewritten() -> None:
    rewrite = mount_rewriter({"volumeMounts": [{"name": "v", "mountPath": "/data"}]}, {"v": "/host/v"})
    changed = {
        "/data": "/host/v",
        "/data/m": "/host/v/m",
        "--model=/data/m": "--model=/host/v/m",
        "/database": "/database",
        "x=/data": "x=/data",
    }
    assert {path: rewrite(path) for path in changed} == changed
    with pytest.raises(ContainerConfigError, match="'w'"):
        mount_rewriter({"volumeMounts": [{"name": "w", "mountPath": "/w"}]}, {})


@pytest.mark.parametrize("arguments", [["--no-such-option"], ["--metric"], ["--port", "http"]])
def test_llama_server_refuses_arguments_it_does_not_have(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_arguments(arguments)
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["-hf", "example/other:Q4_K_M"], ["--model", "/no/such.gguf"], []])
def test_llama_server_without_its_model_fails_as_a_download_does(arguments: list[str]) -> None:
    with pytest.raises(FileNotFoundError):
        model_file(parse_arguments(arguments))


def _view(*containers: ContainerView) -> PodView:
    return PodView(NOW, "127.1.0.1", "127.1.0.2", containers=containers)


def test_phase() -> None:
    runs = ContainerView("a", "i", Running(NOW, "process://1"))
    fine = ContainerView("b", "i", Terminated(0, "Completed", NOW, NOW), done=True)
    bad = ContainerView("c", "i", Terminated(1, "Error", NOW, NOW), done=True)
    assert pod_phase(_view(runs, bad)) == "Running"
    assert pod_phase(_view(fine)) == "Succeeded"
    assert pod_phase(_view(fine, bad)) == "Failed"


def test_conditions_keep_their_transition_time_until_they_change() -> None:
    pod = {"metadata": {"generation": 2}, "spec": {"readinessGates": [{"conditionType": "example/gate"}]}}
    runs = ContainerView("a", "i", Running(NOW, "process://1"), started=True, ready=True)
    first = pod_status(pod, _view(runs), [], NOW)
    gated = {c["type"]: c for c in first["conditions"]}
    assert gated["Ready"]["reason"] == "ReadinessGatesNotReady"

    opened = {**pod, "status": {"conditions": [{"type": "example/gate", "status": "True"}]}}
    second = {c["type"]: c for c in pod_status(opened, _view(runs), first["conditions"], LATER)["conditions"]}
    assert (second["Ready"]["status"], second["Ready"]["lastTransitionTime"]) == (
        "True",
        "2026-01-02T03:05:00Z",
    )
    assert second["ContainersReady"]["lastTransitionTime"] == "2026-01-02T03:04:05Z"
