"""The folder of one cluster: who owns it now, what runs in it, and how to clean up after a crash."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from dev.cluster.processes import ProcessId


class InstanceBusyError(RuntimeError):
    """Another living process runs a cluster in this folder."""


@dataclass(frozen=True, slots=True)
class Record:
    """What the folder's file says: the owner, its components' processes and where to reach them."""

    owner: ProcessId
    url: str
    kubeconfig: str
    components: dict[str, ProcessId] = field(default_factory=dict)


class Instance:
    """One cluster's folder. At most one process holds it; the kernel lets go when that one ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._file = self.folder / "instance.json"
        self._lock: IO[str] | None = None

    def acquire(self) -> list[str]:
        """Take the folder and end what a crashed owner left; return the names of what was ended.

        Raises InstanceBusyError if a living process holds it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = (self.folder / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            record = self.read()
            owner = f"process {record.owner.pid}" if record else "another process"
            raise InstanceBusyError(
                f"{owner} runs a cluster in {self.folder}: stop it with "
                f"`python -m dev.cluster down --folder {self.folder}`, or choose another folder"
            ) from None
        self._lock = lock
        return self.end_leftovers()

    def release(self) -> None:
        """Give the folder back, if this object holds it; the files stay for reading."""
        if self._lock is not None:
            self._file.unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def held(self) -> bool:
        """Tell whether a living process (this one included) holds the folder."""
        try:
            lock = (self.folder / "lock").open()
        except FileNotFoundError:
            return False
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    def write(self, url: str, kubeconfig: Path, components: dict[str, ProcessId]) -> None:
        """Record this process as the owner, with its components, in one atomic step."""
        owner = ProcessId.of(os.getpid())
        if owner is None:
            raise RuntimeError("this process is missing from /proc; is /proc mounted?")
        record = Record(owner, url, str(kubeconfig), components)
        partial = self._file.with_suffix(".partial")
        partial.write_text(json.dumps(dataclasses.asdict(record), indent=2))
        partial.replace(self._file)

    def read(self) -> Record | None:
        """Return what the folder's file says, or None if there is none."""
        try:
            data = json.loads(self._file.read_text())
        except FileNotFoundError:
            return None
        components = {name: ProcessId(**process) for name, process in data["components"].items()}
        return Record(ProcessId(**data["owner"]), data["url"], data["kubeconfig"], components)

    def end_leftovers(self) -> list[str]:
        """End recorded components that still run and forget the record; return their names."""
        record = self.read()
        if record is None:
            return []
        ended = [name for name, process in record.components.items() if process.kill()]
        self._file.unlink()
        return ended
