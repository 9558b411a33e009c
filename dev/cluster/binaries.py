"""Builds the control plane's programs from their Go modules, once per machine, and finds them again.

The modules in `dev/tools/` pin the versions; the finished programs stand in a cache folder whose
name holds those versions and a hash of the module files, so an upgrade builds anew and going back
costs nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

TOOLS = Path(__file__).resolve().parent.parent / "tools"
"""The Go modules that pin what is built."""

PROGRESS_INTERVAL_S = 10.0
"""Seconds between progress lines of a build: often enough to see that it lives."""

Report = Callable[[str], None]
"""Takes one line of progress for a person."""


class BuildError(RuntimeError):
    """The programs could not be built; the message names the remedy."""


@dataclass(frozen=True, slots=True)
class Module:
    """One Go module of `dev/tools/`: `packages` maps each program to its main package."""

    folder: str
    requires: str
    packages: dict[str, str]
    expectation: str
    tags: str = ""
    """Build tags, separated by commas."""

    @property
    def path(self) -> Path:
        """The module's folder."""
        return TOOLS / self.folder

    def version(self) -> str:
        """Return the version its go.mod pins, without the leading `v`."""
        text = (self.path / "go.mod").read_text()
        match = re.search(rf"^(?:require)?\s*{re.escape(self.requires)} v(\S+)", text, re.MULTILINE)
        if match is None:
            raise BuildError(f"{self.path / 'go.mod'} does not require {self.requires}")
        return match.group(1)


ETCD = Module("etcd", "go.etcd.io/etcd/server/v3", {"etcd": "go.etcd.io/etcd/server/v3"}, "about 1 minute")
KWOK = Module("kwok", "sigs.k8s.io/kwok", {"kwok": "sigs.k8s.io/kwok/cmd/kwok"}, "about 1 minute")
KUBERNETES = Module(
    "kubernetes",
    "k8s.io/kubernetes",
    {
        name: f"k8s.io/kubernetes/cmd/{name}"
        for name in ("kube-apiserver", "kube-scheduler", "kube-controller-manager")
    },
    "about 8 minutes on 2 cores",
)
MODULES = (ETCD, KWOK, KUBERNETES)
"""The control plane."""
NODE = Module(
    "node",
    "k8s.io/kubernetes",
    {
        "kubelet": "k8s.io/kubernetes/cmd/kubelet",
        "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
        "kubectl": "k8s.io/kubernetes/cmd/kubectl",
        "pause": "./pause",
    },
    "about 1 minute after the control plane's, 7 minutes without",
)
"""What a real node runs, and its client; `pause` is the container that holds a pod's network."""
COREDNS = Module(
    "coredns",
    "github.com/coredns/coredns",
    {"coredns": "github.com/coredns/coredns"},
    "about 3 minutes on 2 cores",
)
HELM = Module("helm", "helm.sh/helm/v3", {"helm": "helm.sh/helm/v3/cmd/helm"}, "about 1 minute")
KUSTOMIZE = Module(
    "kustomize",
    "sigs.k8s.io/kustomize/kustomize/v5",
    {"kustomize": "sigs.k8s.io/kustomize/kustomize/v5"},
    "about half a minute",
)
# Without the discovery of targets in clouds, most of what Prometheus is made of, and without its web page, whose built
# files are not in the module.
PROMETHEUS = Module(
    "prometheus",
    "github.com/prometheus/prometheus",
    {name: f"github.com/prometheus/prometheus/cmd/{name}" for name in ("prometheus", "promtool")},
    "about 3 minutes",
    tags="remove_all_sd",
)

# Where KWOK keeps its stages (how a fake node or pod moves on), relative to its module.
STAGE_FILES = (
    "kustomize/stage/node/fast/node-initialize.yaml",
    "kustomize/stage/node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
    "kustomize/stage/pod/fast/pod-ready.yaml",
    "kustomize/stage/pod/fast/pod-complete.yaml",
    "kustomize/stage/pod/fast/pod-delete.yaml",
)


@dataclass(frozen=True, slots=True)
class Binaries:
    """The finished programs in one folder of the cache."""

    folder: Path

    def path(self, program: str) -> Path:
        """Return the path of `etcd`, `kwok` or one of the `kube-` programs."""
        return self.folder / program

    @property
    def stages(self) -> list[Path]:
        """KWOK's stage files, in the order it should read them."""
        return [self.folder / "stages" / Path(name).name for name in STAGE_FILES]


def cache_folder() -> Path:
    """Return where Modelyard's development tools keep what they can make again.

    `MODELYARD_CACHE`, else `modelyard` under `XDG_CACHE_HOME`, else `~/.cache/modelyard`.
    """
    if own := os.environ.get("MODELYARD_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "modelyard"


def cache_key() -> str:
    """Return the name of the cache's folder for the pinned versions and these module files."""
    return _key(MODULES, " ".join(STAGE_FILES))


def _key(modules: Sequence[Module], more: str = "") -> str:
    digest = hashlib.sha256()
    for module in modules:
        for name in ("go.mod", "go.sum"):
            digest.update((module.path / name).read_bytes())
        for source in sorted(module.path.rglob("*.go")):
            digest.update(source.read_bytes())
        digest.update(" ".join(_build_flags(module)).encode())
    digest.update(more.encode())
    versions = "-".join(f"{module.folder}-{module.version()}" for module in modules)
    return f"{versions}-{digest.hexdigest()[:12]}"


def ensure_binaries(report: Report | None = None) -> Binaries:
    """Return the programs of the control plane, building them first if this machine has not done so.

    The first build takes about 10 minutes on 2 cores; `report` (default: lines to standard error)
    hears how it goes. Two callers at once build once: the second waits. Raises BuildError.
    """
    return Binaries(ensure(cache_key(), _build_all, report or _say_on_stderr))


def ensure_module(module: Module, report: Report | None = None) -> Path:
    """Return the folder with a further module's programs, building them first if this machine has not done so.

    For programs that only some tests need (Helm, a kubelet): each module has a folder of its own, so that a new one
    does not make the control plane be built again. Raises BuildError.
    """

    def build(into: Path, say: Report) -> None:
        _build(_find_go([module]), module, into, say)

    return ensure(_key([module]), build, report or _say_on_stderr)


def ensure(key: str, build: Callable[[Path, Report], None], say: Report) -> Path:
    """Return the cache's folder of that key, made by `build` in a folder beside it if it is not there.

    Two callers at once build once: the second waits.
    """
    root = cache_folder() / "bin"
    finished = root / key
    if finished.is_dir():
        return finished
    root.mkdir(parents=True, exist_ok=True)
    with _lock(root / f".{key}.lock", say):
        if finished.is_dir():
            return finished
        for leftover in root.glob(f".building-{key}-*"):
            shutil.rmtree(leftover)
        partial = Path(tempfile.mkdtemp(prefix=f".building-{key}-", dir=root))
        try:
            build(partial, say)
            partial.chmod(0o755)
            partial.rename(finished)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return finished


def _say_on_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


@contextlib.contextmanager
def _lock(path: Path, say: Report) -> Iterator[None]:
    """Hold an exclusive lock that the kernel releases if this process dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process is building the same programs; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build_all(into: Path, say: Report) -> None:
    go = _find_go(MODULES)
    for module in MODULES:
        _build(go, module, into, say)
    kwok_sources = Path(_go_output(go, KWOK, "list", "-m", "-f", "{{.Dir}}", KWOK.requires))
    stages = into / "stages"
    stages.mkdir()
    for name in STAGE_FILES:
        shutil.copyfile(kwok_sources / name, stages / Path(name).name)


def _find_go(modules: Sequence[Module]) -> str:
    """Return the go command, after making sure that it can build these modules."""
    go = shutil.which("go")
    if go is None:
        raise BuildError(
            "the programs of the local cluster are built from source and the `go` command is missing: install Go "
            "(https://go.dev/dl/ or your package manager) and put it on PATH"
        )
    for module in modules:
        # Reads go.mod only; a go command that is too old for it fails here, or fetches a newer one
        # by itself where GOTOOLCHAIN allows it.
        _go_output(go, module, "list", "-m")
    return go


def _go_output(go: str, module: Module, *arguments: str) -> str:
    done = subprocess.run(
        [go, *arguments], cwd=module.path, capture_output=True, text=True, check=False, env=_environment()
    )
    if done.returncode:
        needed = re.search(r"^go (\S+)", (module.path / "go.mod").read_text(), re.MULTILINE)
        raise BuildError(
            f"`go {' '.join(arguments)}` failed in {module.path}: {done.stderr.strip()}\n"
            f"Go {needed.group(1) if needed else ''} or later is needed: install it from https://go.dev/dl/, "
            "or set GOTOOLCHAIN=auto so that an older Go fetches it."
        )
    return done.stdout.strip()


def _environment() -> dict[str, str]:
    """Return our environment, so made that no workspace or C compiler of the machine matters."""
    return {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"}


def _build_flags(module: Module) -> list[str]:
    """Return flags for small programs without the build machine's paths."""
    linker = "-s -w"
    if module.requires == KUBERNETES.requires:
        # Without these the API server reports version 0.0.0 and clients take it for an ancient one.
        major, minor, *_ = module.version().split(".")
        values = {"gitVersion": f"v{module.version()}", "gitMajor": major, "gitMinor": minor}
        linker += "".join(f" -X k8s.io/component-base/version.{k}={v}" for k, v in values.items())
    tags = ["-tags", module.tags] if module.tags else []
    return ["-trimpath", "-buildvcs=false", "-ldflags", linker, *tags]


def _build(go: str, module: Module, into: Path, say: Report) -> None:
    programs = ", ".join(module.packages)
    say(f"building {programs} {module.version()} (the first time on a machine: {module.expectation})")
    # With one package -o names the program: etcd's would be called `server` after its folder.
    target = f"{into}/" if len(module.packages) > 1 else str(into / next(iter(module.packages)))
    command = [go, "build", "-v", *_build_flags(module), "-o", target, *module.packages.values()]
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=module.path,
        env=_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines = _follow(process, programs, began, say)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if process.returncode:
        tail = "\n".join(lines[-15:])
        raise BuildError(f"building {programs} failed (exit code {process.returncode}):\n{tail}")
    say(f"built {programs} in {time.monotonic() - began:.0f} s")


def _follow(process: subprocess.Popen[str], programs: str, began: float, say: Report) -> list[str]:
    """Report progress until the build ends; return what it printed (`-v`: a package per line)."""
    lines: list[str] = []

    def read(stream: IO[str]) -> None:
        with stream:
            lines.extend(line.rstrip() for line in stream)

    if process.stderr is None:
        raise BuildError("the build's output is not captured")
    reader = threading.Thread(target=read, args=(process.stderr,), daemon=True)
    reader.start()
    while True:
        try:
            process.wait(PROGRESS_INTERVAL_S)
        except subprocess.TimeoutExpired:
            say(f"  {programs}: {len(lines)} packages compiled, {time.monotonic() - began:.0f} s")
        else:
            break
    reader.join()
    return lines
