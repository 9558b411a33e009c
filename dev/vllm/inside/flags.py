"""Says what a flag of an argparse parser looks like: for vLLM's, and for the stand-in's."""

import argparse
from typing import Any


def describe(action: argparse.Action) -> dict[str, Any]:
    """Return the spellings of a flag and how many values it takes."""
    switch = isinstance(action, argparse.BooleanOptionalAction)
    arities: dict[Any, str] = {0: "none", None: "one", "?": "optional"}
    values = arities.get(action.nargs, "list")
    return {"names": sorted(action.option_strings), "values": "switch" if switch else values}
