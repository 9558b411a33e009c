"""The informers start wherever the process may run."""

import asyncio
import getpass

import kopf
import pytest

from modelyard.kube.informers import run_informers


async def test_start_needs_no_name_of_the_user(monkeypatch: pytest.MonkeyPatch):
    """A container's user is a number that no passwd file knows: Kopf would ask for its name, and that fails."""

    def no_name() -> str:
        raise OSError("No username set in the environment")

    monkeypatch.setattr(getpass, "getuser", no_name)
    started = asyncio.Event()

    async def run_tasks(tasks: list["asyncio.Task[None]"], *, ignored: object) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        started.set()

    monkeypatch.setattr(kopf, "run_tasks", run_tasks)
    await run_informers(kopf.OperatorRegistry(), kopf.OperatorSettings())
    assert started.is_set()
