"""What an Envoy that is to leave asks before it ends: whether it is time to go, and whether what it counted is written.

Its own script calls (`render/envoy/lua/leave.lua`), on the connection that its configuration comes over. Requests are
the node id as it is, answers `yes` or `no`: a script of Envoy has no protobuf.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

import grpc
import grpc.aio

_SERVICE = "modelyard.gateway.v1.Departures"

_LONGEST_ID = 256
"""Bytes of a node id; a pod's UID has 36."""


class Departures(Protocol):
    """Knows which Envoys leave, and what of them is written."""

    async def is_leaving(self, node: str) -> bool:
        """Return whether the pod of an Envoy is being deleted."""

    async def settle(self, node: str) -> bool:
        """Read an Envoy once more; return whether all that it had counted by the time of the call is written."""


def departure_service(departures: Departures) -> grpc.GenericRpcHandler:
    """Return the service for the ADS server."""
    methods = {
        "Leaving": _method(departures.is_leaving),
        "Settle": _method(departures.settle),
    }
    return grpc.method_handlers_generic_handler(_SERVICE, methods)


def _method(answer: Callable[[str], Awaitable[bool]]) -> grpc.RpcMethodHandler:
    async def handle(node: bytes, context: grpc.aio.ServicerContext) -> bytes:
        if len(node) > _LONGEST_ID:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "this is no node id")
        return b"yes" if await answer(node.decode(errors="replace")) else b"no"

    return grpc.unary_unary_rpc_method_handler(handle)
