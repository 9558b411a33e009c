"""The whole way from a pod's Ready to the first byte of a held request: `benchmarks.first_byte` as a part of this run.

Here with API server, watch and operator; `holds.release_one_by_one` measures the gateway's part of it.
"""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks import first_byte
from benchmarks.gateway.rounds import WorkMissingError
from dev.cluster.control_plane import ControlPlane
from dev.cluster.processes import Component
from dev.demo.kube import Cluster, load_manifests, namespace_manifest
from dev.demo.settings import CRDS
from dev.stack import Stack


def ready_to_first_byte(folder: Path, models: int, console: Console) -> list[float]:
    """Return milliseconds from the reply to the status write that sets Ready to the first byte, of each model.

    Raises WorkMissingError if a request is not held or not answered by its model.
    """
    names = [f"m{index}" for index in range(models)]
    with ControlPlane(folder / "control-plane") as plane, Cluster(plane.kubeconfig) as cluster:
        cluster.apply_crds(load_manifests([CRDS]))
        cluster.apply([namespace_manifest(first_byte.NAMESPACE), first_byte.class_manifest()])
        stack = Stack(folder / "stack", plane.kubeconfig, plane.kubeconfig, (first_byte.NAMESPACE,))
        parts = (_engine(folder, names), stack.operator, stack.envoy)
        try:
            for part in parts:
                part.start()
                part.wait_ready()
            samples = asyncio.run(first_byte.run(stack, cluster, plane.kubeconfig, names, console))
            first_byte.check(samples, names)
        except RuntimeError as error:
            raise WorkMissingError(str(error)) from error
        finally:
            for part in reversed(parts):
                part.stop()
    return [sample.milliseconds for sample in samples]


def _engine(folder: Path, names: Sequence[str]) -> Component:
    address, port = first_byte.ENGINE_ADDRESS, first_byte.ENGINE_PORT
    command = [sys.executable, "-m", "dev.standin", "--model", "bench/model", "--host", address]
    command += ["--port", str(port), "--served-model-name", *names]
    return Component("engine", command, folder / "engine.log", lambda: first_byte.responds_at(address, port))
