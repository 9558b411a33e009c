"""Runs one node's programs in namespaces of their own. Started by path, as root: `python sandbox.py PLAN.json`.

Two processes: the outer one stays in the machine's namespaces, joins the node to the bridge and passes signals on; the
inner one is the first process of the node's process namespace, starts the programs and waits. When either ends, the
kernel ends everything in the node and takes back its mounts and links, whatever state that was in.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

# From linux/sched.h and linux/prctl.h.
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where containerd finds runc and its shim, and kube-proxy finds nft: not every PATH has all of it."""

SOCKET_TIMEOUT_S = 30.0
"""Seconds that a program may take until the socket that it serves answers. containerd takes one."""


def main() -> int:
    """Run a node until SIGTERM, or until one of its programs ends; return the exit code."""
    plan = json.loads(Path(sys.argv[1]).read_text())
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"
    joined_read, joined_write = os.pipe()
    apart_read, apart_write = os.pipe()
    _unshare(CLONE_NEWPID)
    child = os.fork()
    if child == 0:
        _prctl_die_with_parent()
        _unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS)
        os.write(apart_write, b"x")
        os.close(joined_write)
        if not os.read(joined_read, 1):
            return 1
        return _inside(plan)

    def pass_on(number: int, frame: FrameType | None) -> None:
        del number, frame
        os.kill(child, signal.SIGKILL)

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, pass_on)
    os.close(apart_write)
    if os.read(apart_read, 1):
        try:
            _join_bridge(plan)
        except subprocess.CalledProcessError:
            os.kill(child, signal.SIGKILL)
        else:
            os.write(joined_write, b"x")
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) & 0xFF


def _unshare(flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "unshare failed: real nodes need root")


def _prctl_die_with_parent() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")


def _join_bridge(plan: dict[str, Any]) -> None:
    """Give the node its link: one end at the bridge, the other in the node's network namespace.

    All further children of the outer process, `ip` too, count processes as the node does: the inner one is the first.
    """
    link = plan["link"]
    _run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", "1")
    _run("ip", "link", "set", link, "master", plan["bridge"], "up")


def _inside(plan: dict[str, Any]) -> int:
    socket.sethostname(plan["name"])
    _separate_mounts(plan["private"])
    _set_up_network(plan)
    running: dict[int, str] = {}
    for program in plan["programs"]:
        with Path(program["log"]).open("ab") as log:
            process = subprocess.Popen(
                program["command"], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        running[process.pid] = program["name"]
        if program.get("socket"):
            _wait_for_socket(program["socket"])
    print("running", flush=True)
    while True:
        # Orphans of containers become ours, and are reaped here too.
        pid, status = os.wait()
        if pid in running:
            code = os.waitstatus_to_exitcode(status)
            print(f"{running[pid]} has ended with exit code {code}", flush=True)
            return 1


def _separate_mounts(private: list[str]) -> None:
    """Keep the node's mounts to itself, and give it empty folders in place of some of the machine's."""
    _run("mount", "--make-rprivate", "/")
    # The kubelet hands some mounts on to containers, which takes a shared tree: shared within the node only.
    _run("mount", "--make-rshared", "/")
    _run("mount", "-t", "proc", "proc", "/proc")
    for folder in private:
        Path(folder).mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", "mode=0755", "modelyard", folder)


def _set_up_network(plan: dict[str, Any]) -> None:
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "address", "add", plan["address"], "dev", "eth0")
    _run("ip", "link", "set", "eth0", "up")
    _run("ip", "route", "add", "default", "via", plan["gateway"])
    for destination, via in plan["routes"]:
        _run("ip", "route", "add", destination, "via", via)
    # This namespace's own setting, not the machine's.
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _wait_for_socket(path: str) -> None:
    deadline = time.monotonic() + SOCKET_TIMEOUT_S
    while True:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(path)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
