"""The options of `modelyard operator` about a Gateway of the cluster in front of ours."""

import re
from collections.abc import Sequence

import typer

from modelyard.core.gatewayroute import GatewayParent
from modelyard.render.gateway_api import GatewayRouteSettings

_NAME = r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
_PARENT = re.compile(rf"({_NAME})/({_NAME})(?:/({_NAME}))?")
_SERVICE = re.compile(rf"({_NAME})(?::([0-9]{{1,5}}))?")


def read_gateway_route(
    parents: Sequence[str], hostnames: Sequence[str], service: str
) -> GatewayRouteSettings | None:
    """Return what the options say; None where no Gateway is named.

    Raises typer.BadParameter, which names the option, for what is not in its form.
    """
    found = _SERVICE.fullmatch(service)
    if found is None or not 0 < int(found[3] or 80) <= 65535:
        raise typer.BadParameter(f"{service!r} is not NAME[:PORT]", param_hint="--gateway-service")
    if not parents:
        return None
    return GatewayRouteSettings(
        tuple(_read_parent(parent) for parent in parents), tuple(hostnames), found[1], int(found[3] or 80)
    )


def _read_parent(text: str) -> GatewayParent:
    found = _PARENT.fullmatch(text)
    if found is None:
        raise typer.BadParameter(
            f"{text!r} is not NAMESPACE/GATEWAY[/LISTENER]", param_hint="--gateway-parent"
        )
    return GatewayParent(found[1], found[3], found[5])
