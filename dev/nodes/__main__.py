"""The command line of the local nodes' agent."""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path
from typing import Annotated

import typer

from dev.nodes import LocalNodes, RestartBackoff, parse_environment_rule


def main(
    kubeconfig: Annotated[
        Path, typer.Option(exists=True, envvar="KUBECONFIG", help="Whose cluster to join.")
    ],
    nodes: Annotated[
        list[str],
        typer.Option(help="CLASS[:GPUS]=COUNT, several separated by commas, e.g. h100:1=2,l4=4,cpu=1."),
    ],
    folder: Annotated[Path, typer.Option(help="Where logs and volumes go.")] = Path(".local-nodes"),
    name_prefix: Annotated[str, typer.Option(help="Begins every node's name.")] = "local",
    standin_env: Annotated[
        list[str] | None,
        typer.Option(
            help="Extra variable for processes: [class=CLASS:|model=SERVED-NAME:|image=PREFIX:]NAME=VALUE, "
            "e.g. class=l4:STANDIN_PROFILE=l4-8b. Repeatable; later ones win."
        ),
    ] = None,
    restart_backoff: Annotated[
        float, typer.Option(help="Seconds of the first pause between restarts of a crashing container.")
    ] = RestartBackoff().initial,
) -> None:
    """Register nodes and run the pods bound to them as processes on loopback addresses.

    Every pod gets an address of its own. Images with a stand-in: vllm/vllm-openai (the engine
    stand-in) and ghcr.io/ggml-org/llama.cpp:server (the real llama.cpp with a small model). Ctrl-C
    kills all processes and deletes the nodes.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        rules = [parse_environment_rule(text) for text in standin_env or []]
        agent = LocalNodes(
            kubeconfig,
            ",".join(nodes),
            folder.resolve(),
            name_prefix=name_prefix,
            rules=rules,
            backoff=RestartBackoff(initial=restart_backoff),
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    asyncio.run(_serve(agent))


async def _serve(agent: LocalNodes) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with agent:
        await stop.wait()


if __name__ == "__main__":
    typer.run(main)
