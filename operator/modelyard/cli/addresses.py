"""Addresses as options state them."""

import typer


def split_address(address: str, option: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT`. Raises typer.BadParameter, which names the option, for anything else."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise typer.BadParameter(f"{address!r} is not HOST:PORT", param_hint=option)
    return host.strip("[]"), int(port)
