"""Runs `vllm serve` as a pod of the operator would: its arguments and environment, on this machine's CPU."""

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev.cluster.processes import Component, free_ports
from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.catalog.engines import Image
from modelyard.render.engines.vllm import VLLM
from modelyard.render.pod import build_pod_template
from modelyard.render.probes import grace_period_seconds
from modelyard.render.settings import PodPeer, RenderSettings
from modelyard.render.workload import Workload

SERVED_NAME = "tiny"
START_TIMEOUT_S = 300.0
"""Seconds until it serves: 36 s on two idle cores, more where others use them too or Python has compiled nothing."""

CPU_ONLY = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
"""What this machine needs and a GPU pod lacks: GiB of KV cache, no network, cores as the system gives them."""
_MOUNTS = ("/cache", "/home/engine", "/tmp")  # noqa: S108
_PEER = PodPeer("modelyard-system", {"app.kubernetes.io/name": "modelyard"})


def build_workload(
    parameters: Mapping[str, str] | None = None, *, adapters: int = 0, drain: str = "60s", **model: Any
) -> Workload:
    """Return a deployment of the tiny model; `model` are further fields of `spec.model`."""
    sources = [
        {"name": f"adapter-{n}", "source": f"hf://contract/adapter-{n}"} for n in range(1, adapters + 1)
    ]
    spec = {
        "model": {"source": "hf://contract/tiny", "name": SERVED_NAME, "adapters": sources, **model},
        # Without compilation it starts in half the time; a user may set this too.
        "engine": {"name": "vLLM", "parameters": {"enforce-eager": "", **(parameters or {})}},
        "placement": {"accelerators": [{"class": "c"}]},
        "replicas": 1,
        "rollout": {"drainTimeout": drain},
    }
    deployment = {"metadata": {"name": "m", "namespace": "n", "uid": "u"}, "spec": spec}
    accelerator = {
        "metadata": {"name": "c"},
        "spec": {"resourceName": "nvidia.com/gpu", "requests": {"cpu": "1", "memory": "1Gi"}},
    }
    return Workload(
        LLMDeployment.model_validate(deployment), AcceleratorClass.model_validate(accelerator), 1, 1
    )


def build_container(workload: Workload, engine: VLLM) -> dict[str, Any]:
    """Return the engine's container as it is rendered."""
    image = Image("docker.io/vllm/vllm-openai:v0.32.0", "0.32.0")
    template = build_pod_template(workload, engine, image, RenderSettings(gateway=_PEER, operator=_PEER))
    container: dict[str, Any] = template["spec"]["containers"][0]
    return container


@dataclass(frozen=True, slots=True)
class Server:
    """A running `vllm serve`."""

    process: Component
    container: Mapping[str, Any]
    """As it was rendered."""
    grace_seconds: int
    """Between the deletion of its pod and SIGKILL."""
    url: str


@contextmanager
def start_server(environment: Path, hub_cache: Path, folder: Path, workload: Workload) -> Iterator[Server]:
    """Start it with what is rendered; it loads while the caller runs. At the end nothing of it is left.

    `folder` stands for the pod's writable folders.
    """
    port = free_ports(1)[0]
    engine = VLLM(port=port)
    container = build_container(workload, engine)
    variables = {item["name"]: _move(item["value"], folder) for item in container["env"]}
    variables |= {"PATH": os.environ["PATH"], "HF_HUB_CACHE": str(hub_cache), **CPU_ONLY}
    for mount in _MOUNTS:
        Path(_move(mount, folder)).mkdir(parents=True, exist_ok=True)
    # The entrypoint of the image is `vllm serve`. env(1) starts with none of our variables.
    command = ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in variables.items())]
    command += [str(environment / "bin" / "vllm"), "serve", *container["args"]]
    process = Component("vllm", command, folder / "vllm.log", lambda: False)
    process.start()
    leader = process.pid
    try:
        yield Server(process, container, grace_period_seconds(workload), f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        # Its engine core is a process of its own, in the session that it leads.
        if leader is not None:
            with suppress(ProcessLookupError):
                os.killpg(leader, signal.SIGKILL)


def _move(value: str, folder: Path) -> str:
    """Put a path of the pod below the folder."""
    return f"{folder}/pod{value}" if value.startswith(_MOUNTS) else value
