"""What holds for the children of every valid workload."""

import argparse
import re
from typing import Any

from hypothesis import HealthCheck, assume, given, settings

from modelyard.render.children import build_children, check_workload
from modelyard.render.workload import Workload
from tests.golden.cases import SETTINGS, broken_rules
from tests.golden.pod_security import violations
from tests.unit.render.strategies import SWITCHES, workloads

# How long an example takes depends on the machine's other work, and says nothing about the children.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def _template(workload: Workload) -> dict[str, Any]:
    template: dict[str, Any] = build_children([workload], SETTINGS)[-1]["spec"]["template"]
    return template


def _engine(workload: Workload) -> dict[str, Any]:
    container: dict[str, Any] = _template(workload)["spec"]["containers"][0]
    return container


def expand(argument: str, environment: dict[str, str]) -> str:
    """Expand variables as the kubelet does: `$$` is `$`, a known `$(NAME)` is its value."""

    def replace(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else environment.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", replace, argument)


def _arguments(workload: Workload) -> list[str]:
    """The arguments that the process gets."""
    container = _engine(workload)
    environment = {item["name"]: item.get("value", "the token") for item in container["env"]}
    return [expand(argument, environment) for argument in container["args"]]


@unhurried
@given(workloads())
def test_a_valid_workload_builds_restricted_pods(workload: Workload) -> None:
    assert list(broken_rules(workload.deployment)) == []
    assert check_workload(workload, SETTINGS) is None
    assert violations(_template(workload)["spec"]) == []


@unhurried
@given(workloads())
def test_building_twice_gives_the_same(workload: Workload) -> None:
    assert build_children([workload], SETTINGS) == build_children([workload], SETTINGS)


@unhurried
@given(workloads())
def test_the_token_is_referenced_and_on_no_command_line(workload: Workload) -> None:
    parameters = workload.deployment.spec.engine.parameters
    assume("the token" not in "".join(parameters.values()))
    container = _engine(workload)
    tokens = [item for item in container["env"] if item["name"] == "HF_TOKEN"]
    assert [item.keys() for item in tokens] == [{"name", "valueFrom"}] * len(tokens)
    assert bool(tokens) == (workload.deployment.spec.model.token_secret is not None)
    assert "the token" not in "".join(_arguments(workload))


@unhurried
@given(workloads())
def test_no_shell_runs(workload: Workload) -> None:
    # The image's entrypoint is the engine itself, and nothing is executed inside the container by the kubelet.
    container = _engine(workload)
    assert "command" not in container
    handlers = [container[name] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert all("exec" not in item for item in (*handlers, container["lifecycle"]["preStop"]))


@unhurried
@given(workloads(engines=("vLLM",)))
def test_vllm_reads_every_user_value_as_that_value(workload: Workload) -> None:
    user = workload.deployment.spec.engine.parameters
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    for name in ("model", "served-model-name", "host", "port", "shutdown-timeout", "tensor-parallel-size"):
        parser.add_argument(f"--{name}")
    for name in ("pipeline-parallel-size", "revision", "max-model-len", "max-loras", "max-cpu-loras"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--enable-prompt-tokens-details", action="store_true")
    parser.add_argument("--enable-lora", action="store_true")
    parser.add_argument("--lora-modules", nargs="+", default=[])
    for name in user:
        if name in SWITCHES:
            parser.add_argument(f"--{name}", action=argparse.BooleanOptionalAction)
        else:
            parser.add_argument(f"--{name}")
    # Raises for anything left over: a flag that we did not render.
    parsed = vars(parser.parse_args(_arguments(workload)))
    for name, value in user.items():
        assert parsed[name.replace("-", "_")] == ((value != "false") if name in SWITCHES else value)
    assert parsed["served_model_name"] == workload.deployment.served_name
    names = [item.split("=", 1)[0] for item in parsed["lora_modules"]]
    assert names == [adapter.name for adapter in workload.deployment.spec.model.adapters]


@unhurried
@given(workloads(engines=("LlamaCpp",)))
def test_llama_server_reads_every_user_value_as_that_value(workload: Workload) -> None:
    # llama-server's parser: a flag of these takes nothing, any other takes the next argument as it is.
    bare = {"--metrics", "--jinja", "--no-webui", "--kv-unified"}
    own = {"hf-repo", "model", "alias", "host", "port", "parallel", "ctx-size", "gpu-layers", "threads"}
    user = workload.deployment.spec.engine.parameters
    rest, read = iter(_arguments(workload)), dict[str, str]()
    for argument in rest:
        if argument in bare:
            continue
        name = argument.removeprefix("--")
        assert name in own | set(user)
        assert name not in read
        read[name] = next(rest)
    assert user.items() <= read.items()
    assert (read["host"], read["port"], read["alias"]) == ("0.0.0.0", "8080", workload.deployment.served_name)


@unhurried
@given(workloads())
def test_a_pod_has_time_to_start_and_to_drain(workload: Workload) -> None:
    container, spec = _engine(workload), _template(workload)["spec"]
    start = container["startupProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] >= workload.start_seconds
    deployment = build_children([workload], SETTINGS)[-1]
    assert deployment["spec"]["progressDeadlineSeconds"] > workload.start_seconds
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    in_engine = workload.drain_seconds if workload.deployment.spec.engine.name == "vLLM" else 0
    assert pause + in_engine < spec["terminationGracePeriodSeconds"]
    assert pause + in_engine >= workload.drain_seconds


@unhurried
@given(workloads())
def test_only_a_pod_that_downloads_may_connect_out(workload: Workload) -> None:
    policy = build_children([workload], SETTINGS)[1]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    ports = [port["port"] for rule in policy.get("egress", []) for port in rule["ports"]]
    assert sorted(ports) == ([53, 53, 443] if workload.is_remote else [])
