"""One node: its files, its programs in their namespaces, and the images in its containerd."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dev.cluster.control_plane import ControlPlane
from dev.cluster.processes import Component, responds
from dev.realnode import cgroups, configs
from dev.realnode.network import (
    BRIDGE,
    HOST_ADDRESS,
    NODE_NETWORK,
    node_address,
    node_link,
    pod_range,
)
from dev.realnode.requirements import program

SANDBOX = Path(__file__).with_name("sandbox.py")

PRIVATE = ("/run", "/var/log", "/var/lib/cni")
"""Folders of the machine that containerd, its plugins or the kubelet write to whatever their configuration says: a node
has empty ones of its own."""


class ImageError(RuntimeError):
    """An image could not be put into a node; the message is containerd's."""


@dataclass(frozen=True, slots=True)
class Programs:
    """Where a node's programs are."""

    node: Path
    """Folder with kubelet and kube-proxy."""
    cni: Path
    """Folder with the network plugins."""


class Node:
    """A node of a running control plane. `start`, `wait_ready` and `stop`; `folder` keeps its logs afterwards."""

    def __init__(self, number: int, folder: Path, control_plane: ControlPlane, programs: Programs) -> None:
        self.number = number
        self.name = f"node-{number}"
        self.folder = folder
        self.address = node_address(number)
        self.cgroup = self.cgroup_of(number)
        self._control_plane = control_plane
        self._programs = programs
        self.component = Component(
            self.name,
            [sys.executable, "-I", "-S", str(SANDBOX), str(folder / "plan.json")],
            folder / "logs" / "node.log",
            self._kubelet_answers,
        )

    @staticmethod
    def cgroup_of(number: int) -> str:
        """Return the name of the control group that a node's containers are in."""
        return f"modelyard-node-{number}"

    @property
    def socket(self) -> Path:
        """Where the node's containerd answers."""
        return self.folder / "containerd.sock"

    def start(self, peers: Iterable[int]) -> None:
        """Start containerd, kubelet and kube-proxy; `peers` are the numbers of the cluster's other nodes."""
        self.clear()
        for name in ("cni", "logs", "addresses", "pod-logs"):
            (self.folder / name).mkdir(parents=True)
        cgroups.make(self.cgroup)
        self._write("plan.json", json.dumps(self._plan(peers), indent=1))
        self._write("containerd.toml", configs.containerd(self.folder, self._programs.cni))
        self._write("cni/10-modelyard.conflist", json.dumps(configs.cni(self.folder, self.number), indent=1))
        self._write("resolv.conf", "")
        kubelet = configs.kubelet(self.folder, self.number, self._control_plane.ca, f"/{self.cgroup}")
        self._write("kubelet.yaml", yaml.safe_dump(kubelet))
        user = self._control_plane.user_kubeconfig("system:kube-proxy")
        self._write("kube-proxy.yaml", yaml.safe_dump(configs.kube_proxy(user, self.name, self.number)))
        self.component.start()

    def wait_ready(self) -> None:
        """Wait until the kubelet serves. Raises ComponentError with the log of what failed."""
        self.component.wait_ready()

    def stop(self) -> None:
        """End everything in the node at once, and remove what it left but its logs."""
        self.component.stop()
        self.clear(logs=False)

    def clear(self, *, logs: bool = True) -> None:
        """Remove the files and control groups of an earlier run; `logs`: those too."""
        cgroups.remove_soon(self.cgroup)
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if logs or path.name not in ("logs", "pod-logs"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def import_image(self, archive: Path) -> None:
        """Put an image archive into containerd, under the name that the archive says. Raises ImageError."""
        self.ctr("images", "import", str(archive))

    def ctr(self, *arguments: str) -> str:
        """Run containerd's client on the pods' images and containers; return what it printed. Raises ImageError."""
        command = [program("ctr"), "--address", str(self.socket), "--namespace", "k8s.io", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ImageError(f"`ctr {' '.join(arguments)}` on {self.name}: {done.stderr.strip()}")
        return done.stdout

    def _kubelet_answers(self) -> bool:
        return responds(10248, "/healthz", address=self.address)

    def _write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def _plan(self, peers: Iterable[int]) -> dict[str, Any]:
        """Return what the sandbox is to do."""
        control_plane, folder = self._control_plane, self.folder
        kubeconfig = control_plane.user_kubeconfig(f"system:node:{self.name}", ["system:nodes"])
        kubelet = [
            str(self._programs.node / "kubelet"),
            f"--config={folder}/kubelet.yaml",
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={self.name}",
            f"--node-ip={self.address}",
            f"--root-dir={folder}/kubelet",
            f"--cert-dir={folder}/kubelet-certificates",
        ]
        proxy = [str(self._programs.node / "kube-proxy"), f"--config={folder}/kube-proxy.yaml"]
        commands = {
            "containerd": [program("containerd"), "--config", f"{folder}/containerd.toml"],
            "kubelet": kubelet,
            "kube-proxy": proxy,
        }
        return {
            "name": self.name,
            "link": node_link(self.number),
            "bridge": BRIDGE,
            "address": f"{self.address}/{NODE_NETWORK.prefixlen}",
            "gateway": HOST_ADDRESS,
            "routes": [[pod_range(peer), node_address(peer)] for peer in peers],
            "private": list(PRIVATE),
            "programs": [
                {
                    "name": name,
                    "command": command,
                    "log": f"{folder}/logs/{name}.log",
                    "socket": str(self.socket) if name == "containerd" else None,
                }
                for name, command in commands.items()
            ],
        }
