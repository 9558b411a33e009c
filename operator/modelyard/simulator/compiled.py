"""Compiles the functions of the simulation, once for each version of its sources.

Numba looks only at a function's own file to see whether code that it kept is still valid, but functions of other files
and their constants are compiled in. So there is a folder for each version of all files of a group.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

ENGINE = ("compiled.py", "records.py", "lists.py", "timing.py", "engine.py", "fleet.py")
"""Files of the simulated engines whose functions and constants are compiled into one another, and this one, which says
how."""
FLOW = ("compiled.py", "fluidsteps.py", "neighbours.py")
"""The same for the flow."""

UNUSED = 7 * 86400.0
"""Seconds after which code of other sources is removed: two checkouts that are both in use keep theirs."""

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Compile a function of the engines to machine code at its first call, and keep the code on disk.

    The functions allocate nothing, so that Numba need not count references: without `_nrt` each call would count those
    of every array of a fleet up and down, which takes two to four times as long as the simulation itself.

    They are all put into their callers (`forceinline`): a call hands over a fleet as some 150 numbers, one by one, and
    a run of ten replicas takes half the time without. What they work out does not change by it.
    """
    return _compile(function, ENGINE, _nrt=False, forceinline=True)


def compiled_flow(function: Function) -> Function:
    """Compile a function of the flow to machine code at its first call, and keep the code on disk."""
    return _compile(function, FLOW)


def _compile(function: Function, sources: tuple[str, ...], **options: bool) -> Function:
    folder = _FOLDERS[sources]
    config: Any = numba.config
    compiler: Any = numba.njit
    before, config.CACHE_DIR = config.CACHE_DIR, folder or ""
    try:
        return cast("Function", compiler(cache=folder is not None, **options)(function))
    finally:
        config.CACHE_DIR = before


def cache_folder(sources: tuple[str, ...], package: Path = Path(__file__).parent) -> str | None:
    """Return where to keep the code of this version of the sources.

    Beside the sources, or among the user's cached files; None: nowhere.
    """
    digest = hashlib.sha256(b"".join((package / name).read_bytes() for name in sources)).hexdigest()[:12]
    own = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    for parent in (package / "__pycache__", own / "modelyard"):
        try:
            parent.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(parent, os.W_OK):
            folder = parent / f"simulator-{digest}"
            if folder.exists():
                with suppress(OSError):
                    os.utime(folder)
            else:
                remove_unused(parent, time.time())
            return str(folder)
    return None


def remove_unused(parent: Path, now: float) -> None:
    """Remove the code of sources that nobody has used for UNUSED. `now`: Unix time."""
    for folder in parent.glob("simulator-*"):
        # Others may remove it meanwhile.
        with suppress(OSError):
            if now - folder.stat().st_mtime > UNUSED:
                shutil.rmtree(folder, ignore_errors=True)


_FOLDERS: dict[tuple[str, ...], str | None] = {sources: cache_folder(sources) for sources in (ENGINE, FLOW)}
