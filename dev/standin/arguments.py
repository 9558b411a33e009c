"""The command line of `vllm serve` and of the `vllm/vllm-openai` image, as far as deployments use it.

Names, kinds and defaults follow vLLM 0.32's CLI reference (docs.vllm.ai, `vllm serve`). Flags without an
effect here are checked for their kind and ignored; unknown ones end the process with status 2, as in vLLM.
"""

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_IGNORED_FLAGS = Path(__file__).with_name("vllm-0.32-flags.txt")

_SIZE = re.compile(r"(\d+(?:\.\d+)?)([kKmMgGtT]?)")
# vLLM's reading of sizes: a small letter counts in thousands, a capital one in powers of 1024.
_SIZE_FACTORS = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "K": 2**10,
    "M": 2**20,
    "G": 2**30,
    "T": 2**40,
}


@dataclass(frozen=True, slots=True)
class LoraModule:
    """A LoRA adapter that is served as a model of its own."""

    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments that the stand-in acts on. None means: not given."""

    model: str
    served_model_names: tuple[str, ...]
    lora_modules: tuple[LoraModule, ...]
    host: str
    port: int
    api_keys: tuple[str, ...]
    max_model_len: int | None
    """Context length in tokens."""
    max_num_seqs: int | None
    max_num_batched_tokens: int | None
    block_size: int | None
    num_gpu_blocks_override: int | None
    prefix_caching: bool
    force_include_usage: bool
    prompt_tokens_details: bool
    """Whether the usage says how much of the prompt was cached."""
    shutdown_timeout: int
    """Seconds that in-flight requests get after SIGTERM; 0 ends them at once, vLLM's default."""


def parse_arguments(argv: Sequence[str], *, epilog: str = "") -> Arguments:
    """Parse a `vllm serve` command line.

    Exits with status 2 and a message on stderr for unknown flags and bad values, with 0 for `--help`.
    """
    parser = _build_parser(epilog)
    words = list(argv)
    if words[:1] == ["serve"]:
        words = words[1:]
    given = parser.parse_args([_with_dashes(word) for word in words])
    if given.enable_auto_tool_choice and not given.tool_call_parser:
        parser.error("--enable-auto-tool-choice requires --tool-call-parser")
    model = given.model_tag or given.model
    return Arguments(
        model=model,
        served_model_names=tuple(given.served_model_name or [model]),
        lora_modules=tuple(given.lora_modules),
        host=given.host or "0.0.0.0",
        port=given.port,
        api_keys=tuple(given.api_key or []),
        max_model_len=given.max_model_len,
        max_num_seqs=given.max_num_seqs,
        max_num_batched_tokens=given.max_num_batched_tokens,
        block_size=given.block_size,
        num_gpu_blocks_override=given.num_gpu_blocks_override,
        prefix_caching=given.enable_prefix_caching,
        force_include_usage=given.enable_force_include_usage,
        prompt_tokens_details=given.enable_prompt_tokens_details,
        shutdown_timeout=given.shutdown_timeout,
    )


def _build_parser(epilog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dev.standin",
        description="Stands in for vLLM's OpenAI server. Takes the arguments of `vllm serve`.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("model_tag", nargs="?", help="the model, as in `vllm serve MODEL`")
    parser.add_argument("--model", default="Qwen/Qwen3-0.6B", help="the model (default: vLLM's)")
    parser.add_argument(
        "--served-model-name", nargs="+", help="names that clients use; metrics carry the first"
    )
    parser.add_argument("--lora-modules", nargs="+", type=_lora_module, default=[], metavar="NAME=PATH")
    parser.add_argument("--host", help="address to listen on (default: all)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on; 0 takes a free one")
    parser.add_argument("--api-key", nargs="+", help="keys that /v1 asks for")
    parser.add_argument(
        "--max-model-len", type=_model_length, help="context length in tokens: 8192, 8k, 8K or auto"
    )
    parser.add_argument("--max-num-batched-tokens", type=_size, help="token budget of a step: 8192, 8k or 8K")
    for flag in ("max-num-seqs", "block-size", "num-gpu-blocks-override"):
        parser.add_argument(f"--{flag}", type=_positive)
    parser.add_argument("--shutdown-timeout", type=int, default=0, help="seconds to drain after SIGTERM")
    switch = argparse.BooleanOptionalAction
    parser.add_argument("--enable-prefix-caching", action=switch, default=True)
    parser.add_argument("--enable-force-include-usage", action=switch, default=False)
    parser.add_argument("--enable-prompt-tokens-details", action=switch, default=False)
    parser.add_argument("--middleware", action="append", help=argparse.SUPPRESS)
    _add_ignored_flags(parser)
    return parser


def _add_ignored_flags(parser: argparse.ArgumentParser) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "int": {"type": int},
        "float": {"type": float},
        "size": {"type": _size},
        "text": {},
        "list": {"nargs": "+"},
        "optional": {"nargs": "?"},
        "switch": {"action": argparse.BooleanOptionalAction},
        "set": {"action": "store_true"},
    }
    for line in _IGNORED_FLAGS.read_text().splitlines():
        if not line.startswith("#"):
            kind, *names = line.split()
            parser.add_argument(*names, **kinds[kind], help=argparse.SUPPRESS)


def _with_dashes(word: str) -> str:
    """Spell a flag with dashes: vLLM takes `--max_model_len` too."""
    if not word.startswith("--"):
        return word
    flag, equals, value = word.partition("=")
    return flag.replace("_", "-") + equals + value


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 4096, 4k or 4K")
    size = int(float(match[1]) * _SIZE_FACTORS[match[2]])
    if size < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return size


def _model_length(text: str) -> int | None:
    return None if text.lower() in ("auto", "-1") else _size(text)


def _lora_module(text: str) -> LoraModule:
    if text.startswith("{"):
        try:
            entry = json.loads(text)
            return LoraModule(str(entry["name"]), str(entry["path"]))
        except (ValueError, KeyError) as error:
            raise argparse.ArgumentTypeError(f"{text!r} needs `name` and `path`") from error
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH")
    return LoraModule(name, path)
