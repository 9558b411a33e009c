"""Options of the commands that read manifests."""

from pathlib import Path
from typing import Annotated

import typer

Files = Annotated[
    list[Path],
    typer.Option(
        "--file",
        "-f",
        help="File or folder with manifests, or - for standard input; may be given several times.",
    ),
]
ObjectNamespace = Annotated[
    str, typer.Option("--namespace", "-n", help="Namespace of objects that name none.")
]
