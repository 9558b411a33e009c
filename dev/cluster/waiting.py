"""Waits for a condition of the outside world, within a bound."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def wait_until(
    condition: Callable[[], Result], what: str, *, timeout_s: float = 30.0, interval_s: float = 0.1
) -> Result:
    """Call `condition` every `interval_s` seconds until it returns something true; return that.

    Raises TimeoutError, saying `what` did not come true, after `timeout_s` seconds.
    """
    deadline = time.monotonic() + timeout_s
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s:g} s")
        time.sleep(interval_s)
    return result
