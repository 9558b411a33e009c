"""TLS of the ADS server: both sides show certificates, and the operator's own changes while it serves."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from modelyard.gateway.authority import Files
from modelyard.render.envoy.control_plane import GATEWAY_IDENTITY

_NAMES = "x509_subject_alternative_name"
"""gRPC's property of a peer (https://grpc.github.io/grpc/core/md_doc_server_side_auth.html)."""

logger = logging.getLogger(__name__)


class ServerTls:
    """The operator's certificate and the authorities of Envoy's. TLS 1.2 or later is gRPC's own rule.

    A change is for connections that come: those that are open stay.
    """

    def __init__(self, files: Files) -> None:
        self._current = _configuration(files)
        self._next: grpc.ServerCertificateConfiguration | None = None

    def replace(self, files: Files) -> None:
        """Use these for all further connections."""
        self._next = _configuration(files)

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials that refuse who shows no certificate of a known authority."""
        return grpc.dynamic_ssl_server_credentials(
            self._current, self._fetch, require_client_authentication=True
        )

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        # Called by gRPC's own threads before each handshake; None: as before.
        following, self._next = self._next, None
        return following


class GatewayOnly(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Serves Envoys of the gateway and nobody else: the authority's signature alone is the operator's own too."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        """Return the handler behind a look at the peer's certificate."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        behaviour = handler.stream_stream or handler.unary_unary

        async def check(request: Any, context: grpc.aio.ServicerContext) -> Any:
            names = context.auth_context().get(_NAMES, ())
            if GATEWAY_IDENTITY.encode() not in names:
                logger.warning("%s is refused: its certificate is not the gateway's", context.peer())
                await context.abort(
                    grpc.StatusCode.UNAUTHENTICATED, f"the certificate must have the URI {GATEWAY_IDENTITY}"
                )
            return await behaviour(request, context)

        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.stream_stream
            else grpc.unary_unary_rpc_method_handler
        )
        return make(check, handler.request_deserializer, handler.response_serializer)


def _configuration(files: Files) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(files.key.encode(), files.chain.encode())], root_certificates=files.authorities.encode()
    )
