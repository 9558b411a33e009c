"""25 well-known models and GPUs against public figures: `python -m benchmarks.models_and_gpus [--write | --check]`."""

from typing import Annotated

import typer
from rich.console import Console

from benchmarks.models_and_gpus.compare import work_out
from benchmarks.models_and_gpus.page import PAGE, render
from benchmarks.models_and_gpus.pairs import load


def main(
    write: Annotated[bool, typer.Option(help="Write docs/models-and-gpus.md.")] = False,
    check: Annotated[bool, typer.Option(help="Fail if docs/models-and-gpus.md differs.")] = False,
) -> None:
    """Print the page, write it, or check that it is up to date."""
    text = render(work_out(document := load()), document.tolerances)
    if write:
        PAGE.write_text(text, encoding="utf-8")
    elif check:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
            Console(stderr=True, soft_wrap=True).print(
                f"{PAGE.name} is out of date: run python -m benchmarks.models_and_gpus --write"
            )
            raise typer.Exit(1)
    else:
        Console(soft_wrap=True).print(text, markup=False, highlight=False)


if __name__ == "__main__":
    typer.run(main)
