"""Becomes another program that the kernel kills when the process that started it ends.

Run as `python exec_bound_to_parent.py PARENT_PID PROGRAM [ARGUMENT...]`. The setting outlives the
exec (prctl(2), PR_SET_PDEATHSIG), so a cluster never outlives its owner, not even by SIGKILL.
Doing it here rather than between fork and exec keeps Python code out of the forked child, where it
could deadlock on another thread's lock.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


def main() -> None:
    """Bind this process to its parent and exec the program."""
    parent, program, *arguments = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    # The parent may have ended before prctl took effect; then nobody would end us.
    if os.getppid() != int(parent):
        sys.exit(f"the process {parent} that started {program} has ended")
    os.execv(program, [program, *arguments])  # noqa: S606 (no shell is the point)


if __name__ == "__main__":
    main()
