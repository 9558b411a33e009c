"""Entry point: `python -m dev.standin`, with the arguments of `vllm serve`."""

import asyncio
import os
import sys

from dev.standin.arguments import parse_arguments
from dev.standin.server import log, serve
from dev.standin.settings import Faults, Settings


def main() -> int:
    """Run the stand-in and return its exit code."""
    described = [
        "variables:",
        *Settings.describe(),
        "",
        "faults, as variables or, in small letters, as JSON fields of POST /standin/faults",
        "(GET shows them, DELETE clears them):",
        *Faults.describe(),
    ]
    arguments = parse_arguments(sys.argv[1:], epilog="\n".join(described))
    try:
        settings = Settings.from_environment(os.environ)
        faults = Faults.from_environment(os.environ)
    except ValueError as error:
        log(f"error: {error}")
        return 2
    return asyncio.run(serve(arguments, settings, faults))


if __name__ == "__main__":
    sys.exit(main())
