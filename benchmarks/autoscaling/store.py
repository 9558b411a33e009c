"""Keeps every result in a file of its own, so that an interrupted run goes on where it was.

A result's name is a digest of all that it depends on: the job, the scenario's content, the curve that it was worked out
with, the code of the simulator, the traces, and for our own policy the code of the decision.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import modelyard
from benchmarks.autoscaling.jobs import Job, Result
from benchmarks.autoscaling.loads import DATA
from benchmarks.autoscaling.policies import OURS
from benchmarks.autoscaling.scenarios import Case

_PACKAGES = ("api", "catalog", "core", "simulator")
_MODULES = ("jobs.py", "loads.py", "policies.py", "scenarios.py")
"""Of the benchmark: the other ones only say what is done and how it is shown."""
_DECISION = ("core/scaling/", "core/decide.py", "core/replicas.py", "simulator/modelyard.py")
"""Code that no other policy runs. `test_store.py` shows that."""


def sources(*, ours: bool) -> tuple[Path, ...]:
    """Return the files that results of our own policy, or of all others, depend on."""
    package = Path(modelyard.__file__).parent
    code = [
        path
        for name in _PACKAGES
        for path in sorted((package / name).rglob("*"))
        if path.suffix in (".py", ".yaml", ".json", ".csv")
    ]
    if not ours:
        code = [path for path in code if not path.relative_to(package).as_posix().startswith(_DECISION)]
    return (*code, *(Path(__file__).parent / name for name in _MODULES), *DATA)


def digest_of(paths: Iterable[Path]) -> str:
    """Return a digest of the content of files."""
    digest = hashlib.sha256()
    for path in paths:
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)} ".encode())
        digest.update(content)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Store:
    """A folder of results, for one state of the sources."""

    folder: Path
    version: str
    """Digest of the sources of what is not ours."""
    own: str
    """Digest of the sources of our own policy."""

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Return the store in a folder, for the sources as they are now."""
        return cls(folder, digest_of(sources(ours=False)), digest_of(sources(ours=True)))

    def load(self, job: Job, case: Case, curve: Result | None) -> Result | None:
        """Return a kept result; None: there is none."""
        path = self._path(job, case, curve)
        if not path.exists():
            return None
        result: Result = json.loads(path.read_text(encoding="utf-8"))
        return result

    def keep(self, job: Job, case: Case, curve: Result | None, result: Result) -> None:
        """Keep a result. A run that is broken off meanwhile leaves none, but no half one."""
        path = self._path(job, case, curve)
        path.parent.mkdir(parents=True, exist_ok=True)
        partly = path.with_suffix(".tmp")
        partly.write_text(json.dumps(result), encoding="utf-8")
        partly.replace(path)

    def _path(self, job: Job, case: Case, curve: Result | None) -> Path:
        content = case.model_dump(include={"load", "start", "objective"}) | asdict(job)
        if job.kind == "curve":
            # The same load at another start time has the same curve.
            content |= {"case": "", "start": 0}
        shape = (curve["ratio"], curve["share"], curve["bursts"]) if curve else None
        version = self.own if job.policy == OURS else self.version
        text = json.dumps([content, shape, version], sort_keys=True)
        return self.folder / f"{job.kind}-{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"
