from dataclasses import dataclass, replace

import pytest

from modelyard.catalog.accelerators import find_hardware
from modelyard.catalog.calibration import calibration_table
from modelyard.catalog.hardware import Hardware
from modelyard.catalog.models import find_model
from modelyard.catalog.quantization import weight_format
from modelyard.core.load import LoadShape, Objective
from modelyard.core.perf.predict import predict, sustainable
from modelyard.core.perf.prior import DECODE_TERMS, cache_value_bytes, decode_terms, prior
from modelyard.core.perf.step import StepTime
from modelyard.core.perf.work import roofline

SHAPE = LoadShape(1000.0, 200.0)
LOOSE = Objective(time_to_first_token=60.0, inter_token_latency=1.0)


@dataclass(frozen=True)
class Split:
    tensor: int = 1
    pipeline: int = 1
    nodes: int = 1


def step_of(
    model="meta-llama/Llama-3.1-8B-Instruct",
    gpu="H100-SXM",
    tensor=1,
    pipeline=1,
    quantization=None,
    cache=None,
    engine="vLLM",
) -> StepTime:
    step = prior(
        find_model(model).profile, quantization, find_hardware(gpu), Split(tensor, pipeline), cache, engine
    )
    assert step is not None
    return step


def test_decoding_one_sequence_takes_at_least_the_time_to_read_the_weights():
    # 8.03 billion weights less the input embeddings, in 16 bits, at 3.35 TB/s.
    floor = (8_030_261_248 - 128_256 * 4096) * 2 / 3.35e12
    assert floor < step_of().decode(1, 0) < 2 * floor


def test_the_prior_equals_the_sum_of_its_terms():
    hardware = find_hardware("H100-SXM")
    profile = find_model("Qwen/Qwen3-235B-A22B-FP8").profile
    factors = calibration_table().find("vLLM", "H100-SXM").coefficients
    work = roofline(profile, weight_format("fp8"), hardware, cache_bytes=1.0, tensor=8)
    terms = dict(zip(DECODE_TERMS, decode_terms(work, SHAPE, 17.0), strict=True))
    step = prior(profile, "fp8", hardware, Split(8), "fp8", "vLLM")
    total = sum(getattr(factors, name) * value for name, value in terms.items())
    assert step.inter_token_latency(SHAPE, 17.0) == pytest.approx(total)


def test_a_mixture_of_experts_reads_more_of_them_for_more_tokens():
    step = step_of("mistralai/Mixtral-8x7B-Instruct-v0.1", tensor=2)
    one, all_of_them = step.decode(1, 0) - step.fixed, step.decode(64, 0) - step.fixed
    assert step.expert_share == 0.25
    assert one - step.per_sequence == pytest.approx(step.experts / 4)
    assert all_of_them - 64 * step.per_sequence == pytest.approx(step.experts)


def test_a_window_bounds_what_attention_reads():
    step = step_of("openai/gpt-oss-120b", tensor=2)
    assert step.context(100) == 100
    assert step.context(10_000) == (10_000 + 128) / 2


@pytest.mark.parametrize(
    "hardware",
    [
        Hardware(name="new", memory=80 * 2**30, throughput={"bf16": 1e15}),
        Hardware(name="new", memory=80 * 2**30, bandwidth=1e12),
        Hardware(name="new", memory=80 * 2**30, bandwidth=1e12, throughput={"int8": 1e15}),
    ],
    ids=["bandwidth", "throughput", "throughput of 16 bits"],
)
def test_speed_is_not_known_without(hardware):
    profile = find_model("meta-llama/Llama-3.1-8B-Instruct").profile
    assert prior(profile, None, hardware, Split(), None, "vLLM") is None


def test_speed_is_not_known_for_unknown_engines_formats_and_cache_types():
    profile, gpu = find_model("meta-llama/Llama-3.1-8B-Instruct").profile, find_hardware("H100-SXM")
    assert prior(profile, None, gpu, Split(), None, "Other") is None
    assert prior(profile, "3-bit-magic", gpu, Split(), None, "vLLM") is None
    assert prior(profile, None, gpu, Split(), "3-bit-magic", "vLLM") is None


def test_a_cpu_whose_bandwidth_is_stated_has_a_speed():
    # github.com/ggml-org/llama.cpp issue 34: 7B Q4_0 on an i9-13900K with DDR5-6400 takes 54.7 ms per token.
    cpu = Hardware(name="i9-13900k", memory=64 * 2**30, bandwidth=102.4e9, throughput={"bf16": 1.5e12})
    profile = find_model("mistralai/Mistral-7B-Instruct-v0.3").profile
    step = prior(profile, "Q4_0", cpu, Split(), None, "LlamaCpp")
    assert step.origin == "roofline"
    assert step.decode(1, 64) == pytest.approx(54.7e-3, rel=0.15)


def test_accelerators_without_measurements_are_less_certain():
    measured, carried = step_of(gpu="H100-SXM"), step_of(gpu="A100-80GB-SXM")
    assert (measured.origin, carried.origin) == ("calibrated", "roofline")
    assert carried.uncertainty > measured.uncertainty
    assert carried.first_token_uncertainty > measured.first_token_uncertainty


def test_a_precision_that_the_accelerator_lacks_only_shrinks_the_weights():
    fast, slow = step_of(gpu="L40S", quantization="fp8"), step_of(gpu="A100-80GB-SXM", quantization="fp8")
    plain = step_of(gpu="A100-80GB-SXM")
    assert slow.prefill_token == plain.prefill_token
    assert slow.decode(1, 0) < plain.decode(1, 0)
    assert fast.prefill_token < step_of(gpu="L40S").prefill_token


def test_tensor_parallelism_is_faster_but_not_in_proportion():
    one, four = step_of(), step_of(tensor=4)
    assert one.decode(1, 1000) / 4 < four.decode(1, 1000) < one.decode(1, 1000)


def test_a_pipeline_does_not_speed_one_sequence_up_but_carries_more():
    one, two = step_of(), step_of(pipeline=2)
    assert two.decode(1, 1000) == pytest.approx(one.decode(1, 1000), rel=0.05)
    assert two.inter_token_latency(SHAPE, 64) < one.inter_token_latency(SHAPE, 64)


def test_more_key_value_heads_than_tensor_ranks_are_not_replicated():
    # Llama 3.1 8B has 8: 16 ranks hold each twice.
    assert step_of(tensor=8).per_context_token * 8 == pytest.approx(step_of().per_context_token)
    assert step_of(tensor=16).per_context_token == pytest.approx(step_of(tensor=8).per_context_token)


@pytest.mark.parametrize(
    ("dtype", "size"), [(None, 2.0), ("auto", 2.0), ("fp8_e4m3", 1.0), ("f16", 2.0), ("q8_0", 8.5008 / 8)]
)
def test_bytes_of_a_cached_value(dtype, size):
    assert cache_value_bytes(dtype) == size


def test_the_prefix_cache_shortens_prefill_but_not_reading():
    step, cached = step_of(), replace(SHAPE, cached_share=0.8)
    assert step.time_to_first_token(cached, 1) < step.time_to_first_token(SHAPE, 1)
    assert step.inter_token_latency(cached, 32) < step.inter_token_latency(SHAPE, 32)
    assert step.decode(32, 1100) < step.inter_token_latency(cached, 32)


def test_rates_follow_from_batch_and_service_time():
    performance = predict(step_of(), SHAPE, 16)
    service = performance.time_to_first_token + 199 * performance.inter_token_latency
    assert performance.requests_per_second == pytest.approx(16 / service)
    assert performance.output_tokens_per_second == pytest.approx(200 * 16 / service)


@pytest.mark.parametrize(
    ("objective", "cache_tokens", "max_sequences", "limit", "batch"),
    [
        (LOOSE, 11_000.0, 256, "memory", 10),
        (LOOSE, 1e9, 256, "maxSequences", 256),
        (replace(LOOSE, inter_token_latency=0.020), 1e9, 256, "interTokenLatency", None),
        (replace(LOOSE, time_to_first_token=0.400), 1e9, 256, "timeToFirstToken", None),
    ],
)
def test_the_batch_is_as_large_as_memory_engine_and_objective_allow(
    objective, cache_tokens, max_sequences, limit, batch
):
    step = step_of()
    capacity = sustainable(step, SHAPE, objective, cache_tokens, max_sequences)
    assert capacity.limit == limit
    assert capacity.feasible
    assert batch is None or capacity.batch == batch
    assert capacity.planned.inter_token_latency <= objective.inter_token_latency
    assert capacity.planned.time_to_first_token <= objective.time_to_first_token
    assert capacity.requests_per_second == capacity.planned.requests_per_second
    assert capacity.performance.inter_token_latency < capacity.planned.inter_token_latency
    if batch is None:
        more = predict(step, SHAPE, capacity.batch + 1, score=1.0)
        assert (
            more.inter_token_latency > objective.inter_token_latency
            or more.time_to_first_token > objective.time_to_first_token
        )


def test_an_objective_that_one_sequence_misses_is_said_with_the_best_figures():
    step = step_of("meta-llama/Llama-3.1-70B-Instruct", tensor=2)
    capacity = sustainable(step, SHAPE, Objective(2.0, 0.005), 1e6, 256)
    assert not capacity.feasible
    assert (capacity.batch, capacity.requests_per_second) == (0, 0.0)
    assert capacity.limit == "interTokenLatency"
    assert capacity.performance == predict(step, SHAPE, 1)
    assert "even one request at a time misses the latency between tokens" in capacity.explain()
    assert "against 5.0 ms between tokens" in capacity.explain()


def test_a_cache_too_small_for_one_request_is_said():
    capacity = sustainable(step_of(), SHAPE, LOOSE, 1150.0, 256)
    assert (capacity.feasible, capacity.limit) == (False, "memory")
    assert capacity.explain() == "the key-value cache does not hold one request of this length"


def test_the_explanation_names_rate_batch_and_limit():
    text = sustainable(step_of(), SHAPE, LOOSE, 11_000.0, 256).explain()
    assert "requests/s with 10 at a time, limited by memory for the key-value cache" in text
    assert "expected" in text
    assert "planned (+-" in text
