"""The installed vLLM, its tiny model, and the lives of servers that were recorded once for all tests."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dev.vllm.environment import ensure_environment, make_model
from dev.vllm.record import REQUESTS, Record, record_life
from dev.vllm.server import build_workload, start_server
from modelyard.render.workload import Workload

WORKLOADS: dict[str, Workload] = {
    "defaults": build_workload(),
    "adapters": build_workload(
        {
            "block-size": "32",
            "dtype": "bfloat16",
            "enable-auto-tool-choice": "true",
            "enable-prefix-caching": "false",
            "max-lora-rank": "16",
            "max-num-batched-tokens": "2048",
            "max-num-seqs": "8",
            "seed": "1",
            "tool-call-parser": "hermes",
        },
        adapters=2,
        contextLength=512,
    ),
}
"""What is served here, by name. None is quantised: the CPU build lacks the kernels of fp8, and ends."""

Live = Callable[[str], Record]


@pytest.fixture(scope="session")
def environment() -> Path:
    """vLLM's own Python environment."""
    return ensure_environment(os.environ.get("UV") or shutil.which("uv") or ".tools/uv/bin/uv")


@pytest.fixture(scope="session")
def hub_cache(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the Hub with the tiny model and its adapters."""
    folder = tmp_path_factory.mktemp("hub")
    make_model(environment, folder)
    return folder


@pytest.fixture(scope="session")
def live(environment: Path, hub_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Live:
    """Return the record of a workload's server. Each is started once."""
    records: dict[str, Record] = {}

    def record(name: str) -> Record:
        if name not in records:
            workload = WORKLOADS[name]
            requests = dict(REQUESTS)
            for adapter, _ in workload.adapters:
                requests[adapter] = ("/v1/completions", {**REQUESTS["completion"][1], "model": adapter})
            with start_server(environment, hub_cache, tmp_path_factory.mktemp(name), workload) as server:
                records[name] = record_life(server, requests)
        return records[name]

    return record
