"""Every flag that a user may set exists in the engine: one that does not would stop every pod at its start.

The local nodes' runners hold the real programs' command lines: vLLM 0.32's from its published wheel, llama.cpp's from
its documentation.
"""

import pytest

from dev.nodes.llamacpp import parse_arguments as parse_llama
from dev.standin.arguments import parse_arguments as parse_vllm
from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.api.engines import ENGINE_PARAMETERS
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.render.engines import ENGINES
from modelyard.render.workload import Workload

VALUES = {
    "cache-type-k": "q8_0",
    "cache-type-v": "q8_0",
    "dtype": "auto",
    "enable-auto-tool-choice": "",
    "enable-chunked-prefill": "",
    "enable-prefix-caching": "",
    "enforce-eager": "",
    "flash-attn": "on",
    "gpu-layers": "all",
    "gpu-memory-utilization": "0.8",
    "kv-cache-dtype": "fp8",
    "limit-mm-per-prompt": '{"image": 1}',
    "reasoning-parser": "qwen3",
    "tool-call-parser": "hermes",
}
"""Values that the flags take; 16 for all others."""

NEEDED = {"enable-auto-tool-choice": {"tool-call-parser": "hermes"}}
"""Parameters that a parameter cannot be without."""

PARSERS = {"vLLM": parse_vllm, "LlamaCpp": parse_llama}


def workload(engine: str, parameters: dict[str, str], context_length: int | None = 1024) -> Workload:
    model = {"source": "hf://ggml-org/gemma-3-270m-it-GGUF:Q4_K_M"}
    if context_length:
        model["contextLength"] = context_length
    deployment = LLMDeployment.model_validate(
        {
            "metadata": {"name": "m", "namespace": "n", "uid": "u"},
            "spec": {
                "model": model,
                "engine": {"name": engine, "parameters": parameters},
                "placement": {"accelerators": [{"class": "c"}]},
                "replicas": 1,
            },
        }
    )
    spec = {"resourceName": "nvidia.com/gpu", "requests": {"cpu": "1", "memory": "1Gi"}}
    accelerator = AcceleratorClass.model_validate({"metadata": {"name": "c"}, "spec": spec})
    return Workload(deployment, accelerator, 1, 1)


@pytest.mark.parametrize(
    ("engine", "flag"), [(engine, flag) for engine, flags in ENGINE_PARAMETERS.items() for flag in flags]
)
def test_the_engine_knows_every_flag_that_a_user_may_set(engine, flag):
    parameters = {flag: VALUES.get(flag, "16")} | NEEDED.get(flag, {})
    rendered = ENGINES[engine].build_arguments(workload(engine, parameters))
    assert any(part == f"--{flag}" or part.startswith(f"--{flag}=") for part in rendered)
    PARSERS[engine](rendered)


@pytest.mark.parametrize("engine", ENGINE_PARAMETERS)
def test_the_engine_knows_what_is_rendered_without_a_context_length(engine):
    PARSERS[engine](ENGINES[engine].build_arguments(workload(engine, {}, context_length=None)))
