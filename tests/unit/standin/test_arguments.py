"""The command line of vLLM, and the stand-in's own variables."""

import pytest

from dev.standin.arguments import LoraModule, parse_arguments
from dev.standin.profiles import PROFILES
from dev.standin.scheduler import Limits
from dev.standin.server import limits_of, model_length
from dev.standin.settings import Faults, MetricsMode, Settings


def test_a_deployments_arguments_are_understood() -> None:
    line = (
        "--model meta-llama/Llama-3.1-8B-Instruct --served-model-name llama llama-8b --host 0.0.0.0 --port 8000 "
        "--max-model-len 8192 --tensor-parallel-size 2 --dtype bfloat16 --quantization fp8 "
        "--gpu-memory-utilization 0.9 --max-num-seqs 256 --kv-cache-dtype fp8 --enable-lora --lora-modules "
        "a=org/a b=org/b --revision main --tokenizer org/t --enable-force-include-usage --enable-prompt-tokens-details "
        "--enable-prefix-caching --trust-remote-code --enable-auto-tool-choice --tool-call-parser hermes "
        "--shutdown-timeout 45 --max-num-batched-tokens 8k --no-enable-log-requests --speculative-config {}"
    )
    arguments = parse_arguments(line.split())
    assert arguments.model == "meta-llama/Llama-3.1-8B-Instruct"
    assert arguments.served_model_names == ("llama", "llama-8b")
    assert arguments.lora_modules == (LoraModule("a", "org/a"), LoraModule("b", "org/b"))
    assert (arguments.host, arguments.port, arguments.shutdown_timeout) == ("0.0.0.0", 8000, 45)
    assert (arguments.max_model_len, arguments.max_num_seqs, arguments.max_num_batched_tokens) == (
        8192,
        256,
        8000,
    )
    assert arguments.force_include_usage
    assert arguments.prompt_tokens_details
    assert arguments.prefix_caching


def test_other_spellings() -> None:
    arguments = parse_arguments(
        ["serve", "org/m", "--max_model_len=8K", "-tp", "2", "--no-enable-prefix-caching"]
    )
    assert (arguments.model, arguments.served_model_names) == ("org/m", ("org/m",))
    assert arguments.max_model_len == 8192
    assert not arguments.prefix_caching
    assert parse_arguments(["--max-model-len", "auto"]).max_model_len is None
    assert parse_arguments(["--lora-modules", '{"name": "a", "path": "p"}']).lora_modules == (
        LoraModule("a", "p"),
    )


@pytest.mark.parametrize(
    "line",
    [
        "--no-such-flag",
        "--max-model-le 8192",
        "--max-num-seqs many",
        "--max-num-seqs 0",
        "--tensor-parallel-size two",
        "--max-model-len 8x",
        "--lora-modules a",
        "--enforce-eager true extra",
        "--enable-auto-tool-choice",
    ],
)
def test_what_vllm_refuses_is_refused(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_arguments(line.split())
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_limits_come_from_arguments_then_variables_then_the_profile() -> None:
    profile = PROFILES["l4-8b"]
    plain = limits_of(parse_arguments([]), Settings(), profile)
    assert plain == Limits(186_000, 256, 2048)
    set_by_variable = limits_of(parse_arguments([]), Settings(kv_cache_tokens=6400), profile)
    assert set_by_variable.kv_cache_tokens == 6400
    given = ["--num-gpu-blocks-override", "100", "--block-size", "32", "--max-num-seqs", "8"]
    assert limits_of(parse_arguments(given), Settings(), profile) == Limits(3200, 8, 2048, 32)


def test_a_context_that_does_not_fit_is_refused() -> None:
    limits = Limits(1000, 8, 2048)
    assert model_length(parse_arguments([]), limits) == 992
    with pytest.raises(ValueError, match="KV cache"):
        model_length(parse_arguments(["--max-model-len", "1000"]), limits)


def test_variables_are_read() -> None:
    environment = {
        "STANDIN_PROFILE": "l4-8b",
        "STANDIN_TIME_SCALE": "2.5",
        "STANDIN_CRASH_AT_START": "true",
        "STANDIN_METRICS": "garbage",
        "HOME": "/",
    }
    assert Settings.from_environment(environment) == Settings(
        profile="l4-8b", time_scale=2.5, crash_at_start=True
    )
    assert Faults.from_environment(environment) == Faults(metrics=MetricsMode.GARBAGE)


@pytest.mark.parametrize(
    "environment",
    [
        {"STANDIN_PROFILE": "abacus"},
        {"STANDIN_TIME_SCALE": "0"},
        {"STANDIN_LOAD_SECONDS": "soon"},
        {"STANDIN_CRASH_AT_START": "perhaps"},
        {"STANDIN_TOKENS_PER_EVENT": "0"},
    ],
)
def test_bad_variables_are_refused(environment: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        Settings.from_environment(environment)
