"""Every command line that is rendered, read by vLLM's own parser: also those that a CPU cannot run."""

import pytest

from dev.vllm.environment import read_arguments
from dev.vllm.server import build_workload
from modelyard.api.engines import ENGINE_PARAMETERS
from modelyard.catalog.quantization import VLLM_CONVERTS, VLLM_DEPRECATED, VLLM_PLUGIN_METHODS, VLLM_READS
from modelyard.render.engines.vllm import VLLM
from tests.golden.cases import INPUTS, read_workload
from tests.unit.render.test_engine_flags import NEEDED, VALUES

WORKLOADS = (
    {
        case: read_workload(case)
        for case in INPUTS
        if read_workload(case).deployment.spec.engine.name == "vLLM"
    }
    | {
        f"parameter {name}": build_workload({name: VALUES.get(name, "16"), **NEEDED.get(name, {})})
        for name in ENGINE_PARAMETERS["vLLM"]
    }
    | {
        f"quantization {name}": build_workload(quantization=name)
        for name in sorted({*VLLM_CONVERTS, *VLLM_READS, *VLLM_DEPRECATED})
    }
    | {"adapters": build_workload(adapters=2)}
)
WRONG = (["--no-such-flag"], ["--max-num-seqs=many"], ["--kv-cache-dtype=fp7"])


LEADER, NUMBER = "set-0.set.team", "1"
"""What LeaderWorkerSet puts into the variables of a pod."""


def arguments(workload):
    """Return the command line of a pod: of a group, of the last of its workers."""
    own = VLLM().build_arguments(workload)
    if workload.nodes == 1:
        return own
    group = VLLM().build_group_arguments(workload, leads=False)
    values = {"$(LWS_LEADER_ADDRESS)": LEADER, "$(LWS_WORKER_INDEX)": NUMBER}
    for name, value in values.items():
        group = tuple(word.replace(name, value) for word in group)
    return (*own, *group)


@pytest.fixture(scope="session")
def report(environment):
    lines = [arguments(workload) for workload in WORKLOADS.values()]
    return read_arguments(environment, [*lines, *WRONG])


@pytest.mark.parametrize("case", WORKLOADS)
def test_vllm_takes_what_is_rendered(report, case):
    workload = WORKLOADS[case]
    result = report["read"][list(WORKLOADS).index(case)]
    assert "error" not in result, result["error"]
    values = result["values"]
    arguments = VLLM().build_arguments(workload)
    assert f"--model={values['model']}" in arguments
    assert values["served_model_name"] == [workload.deployment.served_name]
    assert (values["host"], values["port"]) == ("0.0.0.0", 8000)
    assert values["shutdown_timeout"] == workload.drain_seconds
    assert values["enable_prompt_tokens_details"] is True
    assert values["enable_force_include_usage"] is False
    assert (values["tensor_parallel_size"], values["pipeline_parallel_size"]) == (
        workload.tensor,
        workload.pipeline,
    )
    assert (values["nnodes"], values["headless"]) == (workload.nodes, workload.nodes > 1)
    if workload.nodes > 1:
        assert (values["master_addr"], values["node_rank"]) == (LEADER, int(NUMBER))
        assert workload.tensor * workload.pipeline == workload.count
    assert values["max_model_len"] == workload.context_length
    assert values["quantization"] == workload.deployment.spec.model.quantization
    assert [module.split("'")[1] for module in values["lora_modules"] or []] == [
        name for name, _ in workload.adapters
    ]


def test_wrong_arguments_are_refused(report):
    assert all("error" in result for result in report["read"][len(WORKLOADS) :])


def test_quantization_methods_are_those_of_vllm(report):
    assert {*VLLM_CONVERTS, *VLLM_READS} - VLLM_PLUGIN_METHODS <= set(report["quantization"])
    assert set(report["deprecated"]) == VLLM_DEPRECATED
