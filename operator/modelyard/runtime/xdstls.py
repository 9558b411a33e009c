"""The Secrets with the certificates of operator and gateway: made where there are none, renewed before they end."""

import base64
import binascii
import datetime as dt
import logging
import time
from typing import Any, Final, NoReturn

from modelyard.api.meta import LABEL_MANAGED_BY, MANAGED_BY
from modelyard.gateway.authority import CertificatesUnusableError, Files, read_files, renew
from modelyard.gateway.tls import ServerTls
from modelyard.kube.client import ApiError, KubeClient
from modelyard.kube.resources import SECRETS
from modelyard.runtime.administered import poll
from modelyard.runtime.metrics import WRITES, XDS_CERTIFICATE_NOT_AFTER
from modelyard.runtime.settings import OperatorSettings

logger = logging.getLogger(__name__)

SERVER_SECRET: Final = "modelyard-xds-server"  # noqa: S105  (a name, no password)
"""Secret with the operator's certificate and the authority's key: nobody else needs to read it."""
CLIENT_SECRET: Final = "modelyard-xds-client"  # noqa: S105  (a name, no password)
"""Secret that Envoy's pods mount."""

_TRIES: Final = 5
"""Rounds of reading and writing while another operator changes the Secrets too."""


class XdsCertificates:
    """Keeps both Secrets, and the ADS server's TLS in line with them."""

    def __init__(self, client: KubeClient, settings: OperatorSettings) -> None:
        self._client = client
        self._namespace = settings.render.gateway.namespace
        self._name = settings.xds_tls_name
        self._interval = settings.xds_tls_interval
        self._files: Files | None = None
        self._tls: ServerTls | None = None
        self._problem = ""

    async def start(self) -> ServerTls:
        """Return what the server needs.

        Raises ApiError where the API server refuses or cannot be reached, CertificatesUnusableError if a Secret holds
        something else.
        """
        await self._refresh()
        assert self._tls is not None  # noqa: S101  (set by every good round)
        return self._tls

    async def run(self) -> NoReturn:
        """Look after the Secrets until cancelled. What is in use stays while they cannot be read, or used."""
        await poll(self._try_refresh, self._interval, "The certificates of operator and gateway")

    async def _try_refresh(self) -> None:
        try:
            await self._refresh()
        except CertificatesUnusableError as error:
            if str(error) != self._problem:
                logger.warning("The certificates of operator and gateway stay as they were: %s", error)
            self._problem = str(error)
        else:
            self._problem = ""

    async def _refresh(self) -> None:
        for _ in range(_TRIES):
            if await self._reconcile():
                return
        raise ApiError(409, "Conflict", f"{SERVER_SECRET} and {CLIENT_SECRET} change all the time")

    async def _reconcile(self) -> bool:
        """Bring both Secrets up to date once; returns False if somebody else was faster."""
        server_body, server = await self._read(SERVER_SECRET)
        client_body, client = await self._read(CLIENT_SECRET)
        now = dt.datetime.fromtimestamp(time.time(), dt.UTC)
        wanted, wanted_client = renew(server, client, self._name, now)
        # The operator's first: it is believed to be the authority, the gateway's follows from it.
        for name, body, before, after in (
            (SERVER_SECRET, server_body, server, wanted),
            (CLIENT_SECRET, client_body, client, wanted_client),
        ):
            if after is None:
                logger.warning("Secret %s/%s does not exist, so Envoy cannot connect", self._namespace, name)
            elif after != before and not await self._write(name, body, after):
                return False
        for name, files in ((SERVER_SECRET, wanted), (CLIENT_SECRET, wanted_client)):
            if files is not None:
                XDS_CERTIFICATE_NOT_AFTER.labels(self._namespace, name).set(files.not_after)
        if wanted != self._files:
            logger.info("The operator shows Envoy the certificate with serial number %s", wanted.serial)
            if self._tls is None:
                self._tls = ServerTls(wanted)
            else:
                self._tls.replace(wanted)
            self._files = wanted
        return True

    async def _read(self, name: str) -> tuple[dict[str, Any] | None, Files | None]:
        shown = f"Secret {self._namespace}/{name}"
        body = await self._client.get(SECRETS, self._namespace, name)
        if body is None:
            return None, None
        try:
            data = {
                key: base64.b64decode(value, validate=True) for key, value in (body.get("data") or {}).items()
            }
        except (binascii.Error, ValueError) as error:
            raise CertificatesUnusableError(f"{shown} is not base64: delete it") from error
        return body, read_files(data, shown)

    async def _write(self, name: str, body: dict[str, Any] | None, files: Files) -> bool:
        """Create a Secret, or put new content into the one that was read; returns False if it has changed since."""
        data = {key: base64.b64encode(value).decode() for key, value in files.data().items()}
        if body is None:
            metadata = {
                "name": name,
                "namespace": self._namespace,
                "labels": {LABEL_MANAGED_BY: MANAGED_BY},
            }
            body = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata}
            write = self._client.create
        else:
            write = self._client.replace
        try:
            await write(SECRETS, {**body, "data": data})
        except ApiError as error:
            if error.status in {404, 409}:
                return False
            raise
        WRITES.labels(kind="Secret").inc()
        logger.info(
            "Secret %s/%s has the certificate with serial number %s", self._namespace, name, files.serial
        )
        return True
