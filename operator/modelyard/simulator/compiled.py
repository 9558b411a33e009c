"""Compiles the functions of the simulation, once for each version of its sources."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

SOURCES = ("compiled.py", "records.py", "lists.py", "timing.py", "engine.py", "fleet.py")
"""Files whose functions and constants are compiled into one another, and this one, which says how."""

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Compile a function to machine code at its first call, and keep the code on disk.

    Numba looks only at a function's own file to see whether the kept code is still valid, but code from other files
    and their constants are compiled in. So there is a folder for each version of all of them.

    The functions allocate nothing, so that Numba need not count references: without `_nrt` each call would count those
    of every array of a fleet up and down, which takes two to four times as long as the simulation itself.

    They are all put into their callers (`forceinline`): a call hands over a fleet as some 150 numbers, one by one, and
    a run of ten replicas takes half the time without. What they work out does not change by it.
    """
    config: Any = numba.config
    compiler: Any = numba.njit
    before, config.CACHE_DIR = config.CACHE_DIR, _CACHE or ""
    try:
        return cast("Function", compiler(cache=_CACHE is not None, _nrt=False, forceinline=True)(function))
    finally:
        config.CACHE_DIR = before


def _cache_folder() -> str | None:
    """Return where to keep the code: beside the sources, or among the user's cached files; None: nowhere."""
    package = Path(__file__).parent
    digest = hashlib.sha256(b"".join((package / name).read_bytes() for name in SOURCES)).hexdigest()[:12]
    own = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    for parent in (package / "__pycache__", own / "modelyard"):
        try:
            parent.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(parent, os.W_OK):
            return str(parent / f"simulator-{digest}")
    return None


_CACHE = _cache_folder()
