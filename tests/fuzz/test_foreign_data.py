"""What engine pods, which are hostile, and model repositories, which anybody may fill, tell the operator."""

import asyncio
import json
from typing import Any

from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from modelyard.api.meta import Refusal
from modelyard.catalog.modelconfig import read_config
from modelyard.catalog.weightfile import DamagedHeaderError, count_header
from modelyard.core.decide import decide_deployment
from modelyard.core.snapshot import Snapshot
from modelyard.core.state import Policy
from tests.fuzz import hostile
from tests.fuzz.conftest import TRIED, tries
from tests.unit.core.build import KEY, make_accelerator
from tests.unit.core.enginepages import make_page
from tests.unit.runtime.enginestage import Stage, make_engine

SERIES = (
    "num_requests_running",
    "num_requests_waiting",
    "inter_token_latency_seconds_created",
    "inter_token_latency_seconds_sum",
    "inter_token_latency_seconds_count",
    "iteration_tokens_total_count",
    "time_to_first_token_seconds_sum",
    "time_to_first_token_seconds_count",
    "request_time_per_output_token_seconds_sum",
    "request_queue_time_seconds_sum",
    "request_prompt_tokens_sum",
    "request_generation_tokens_sum",
    "request_generation_tokens_count",
    "prefix_cache_queries",
    "prefix_cache_hits",
)
VALUES = st.sampled_from(
    (0.0, 5e-324, 1e-300, 1e-9, 1.0, 199.0, 200.0, 1e6, 1e18, 2.0**63, 1e153, 1e300, 1.7e308)
) | st.floats(0, 1e9)
"""Counts that a page may hold: finite and not negative. Others are refused at once."""
pages = st.dictionaries(st.sampled_from(SERIES), VALUES).map(lambda values: make_page(**values))
garbage = (
    st.sampled_from(("", "vllm:num_requests_running NaN\n", "\0" * 1000, "a" * 100_000)) | hostile.strings
)


@st.composite
def rising(draw: st.DrawFn) -> list[str]:
    """Pages of an engine that works, in its own numbers: from these something would be learned."""
    base = {name: draw(VALUES) for name in SERIES}
    growth = {name: draw(VALUES) for name in SERIES}
    # Enough for an observation.
    growth["inter_token_latency_seconds_count"] = max(200.0, growth["inter_token_latency_seconds_count"])
    growth["request_generation_tokens_count"] = max(50.0, growth["request_generation_tokens_count"])
    growth["inter_token_latency_seconds_created"] = growth["num_requests_waiting"] = 0.0
    base["inter_token_latency_seconds_created"] = base["num_requests_waiting"] = 0.0
    return [
        make_page(**{name: min(base[name] + step * growth[name], 1.7e308) for name in SERIES})
        for step in range(4)
    ]


@tries(60)
@given(
    answers=rising() | st.lists(pages | garbage, min_size=4, max_size=4),
    status=st.sampled_from((200, 200, 500)),
)
def test_no_page_of_an_engine_stops_the_reader_or_the_decision(answers: list[str], status: int) -> None:
    TRIED["pages of hostile engines"] += len(answers)
    asyncio.run(read(answers, status))


async def read(answers: list[str], status: int) -> None:
    left = iter([*answers, *answers[-1:] * 10])
    async with Stage() as stage:
        stage.deploy(requests_per_minute=None, scaling={"min": 1, "max": 5})
        stage.deploy("team/good")
        await stage.serve(lambda _: web.Response(body=next(left).encode("utf-8", "replace"), status=status))
        await stage.start(make_engine(1.2), "pod-good", "team/good")
        await stage.rounds(4)
        # The honest engine beside it is learned from.
        good = stage.speed("team/good")
        assert good is not None
        assert good.readings > 0
        seen = stage.fleet.indices.deployments[KEY]
        (deployment,) = (item.object for item in seen)
        snapshot = Snapshot(
            deployments={KEY: deployment},
            accelerators={"l4": make_accelerator("l4")},
            pods={KEY: tuple(stage.fleet.indices.pods[KEY])},
            services={key: value for key, value in stage.fleet.services.items() if key == KEY},
        )
        plan, _ = decide_deployment(KEY, snapshot, stage.fleet.memory[KEY], stage.now, Policy())
        assert plan.replicas is None or 0 <= plan.replicas <= 5


CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "max_position_embeddings": 4096,
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "tie_word_embeddings": False,
    "vocab_size": 8000,
    "rope_scaling": {"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 2048},
    "sliding_window": 128,
    "layer_types": ["full_attention"] * 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "moe_layer_freq": 1,
    "first_k_dense_replace": 1,
    "mlp_only_layers": [1],
    "decoder_sparse_step": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "v_head_dim": 16,
    "torch_dtype": "bfloat16",
    "quantization_config": {"quant_method": "fp8", "bits": 8, "config_groups": {"a": {"weights": {}}}},
    "text_config": {"model_type": "llama", "hidden_size": 256},
}
FAMILIES = (
    "llama",
    "mistral",
    "mixtral",
    "falcon",
    "qwen2",
    "qwen3_moe",
    "gemma3",
    "gpt_oss",
    "deepseek_v3",
    "x",
)


@tries(400)
@given(data=st.data())
def test_any_configuration_of_a_model_is_a_profile_or_a_refusal(data: st.DataObject) -> None:
    TRIED["configurations of models"] += 1
    kept = data.draw(st.sets(st.sampled_from(sorted(CONFIG)), min_size=8))
    config = {name: CONFIG[name] for name in kept}
    for name in data.draw(st.lists(st.sampled_from(sorted(CONFIG)), max_size=3)):
        config[name] = data.draw(hostile.json_values | hostile.numbers)
    config["model_type"] = data.draw(st.sampled_from(FAMILIES) | hostile.strings)
    if data.draw(st.booleans()):
        config = {"text_config": config, "model_type": "x"}
    # As it comes from the file.
    config = json.loads(json.dumps(config))
    found = read_config(config, data.draw(st.none() | st.integers(1, 10**13)))
    if isinstance(found, Refusal):
        assert len(found.message) < 1024
        assert "\n" not in found.message


@tries(200)
@given(header=hostile.json_values | st.dictionaries(hostile.strings, hostile.json_values))
def test_any_header_of_a_weight_file_is_counted_or_damaged(header: Any) -> None:
    TRIED["headers of weight files"] += 1
    try:
        counts = count_header(json.dumps(header).encode())
    except DamagedHeaderError:
        return
    assert all(count > 0 for count in counts.values())
