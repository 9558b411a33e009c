"""The certificate of the gateway: its Secret is read from time to time, as those of providers are."""

import base64
import binascii
import logging
import time
from collections.abc import Callable

from modelyard.api.meta import Refusal
from modelyard.core.certificates import Certificate, find_lapse, read_certificate
from modelyard.core.reasons import Code, Reason
from modelyard.kube.client import ApiError, KubeClient
from modelyard.kube.resources import SECRETS
from modelyard.runtime.administered import poll
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.logs import about
from modelyard.runtime.metrics import CERTIFICATE_NOT_AFTER, CERTIFICATE_PROBLEM
from modelyard.runtime.settings import OperatorSettings

logger = logging.getLogger(__name__)


class CertificateKeeper:
    """Keeps the last good certificate, and says what is wrong with the Secret."""

    def __init__(
        self, client: KubeClient, fleet: Fleet, settings: OperatorSettings, on_change: Callable[[], None]
    ) -> None:
        self._client = client
        self._fleet = fleet
        self._settings = settings
        self._on_change = on_change
        self._namespace = settings.render.gateway.namespace
        self._name = settings.tls_secret or ""
        self._problem: Reason | None = None

    async def start(self) -> None:
        """Read the Secret once, so that an Envoy that starts need not wait for the second table."""
        await self._refresh()

    async def run(self) -> None:
        """Read until cancelled."""
        await poll(self._refresh, self._settings.provider_interval, "The gateway's certificate")

    async def _refresh(self) -> None:
        """Take over what the Secret holds, if it is good.

        Raises ApiError where the API server refuses or cannot be reached.
        """
        secret = f"Secret {self._namespace}/{self._name}"
        found = await self._read(secret)
        if isinstance(found, Refusal):
            stays = (
                "the last good certificate stays"
                if self._fleet.certificate
                else "no client gets in meanwhile"
            )
            self._report(Reason(found.reason, f"{found.message}; {stays}"))
            return
        if found != self._fleet.certificate:
            self._fleet.certificate = found
            CERTIFICATE_NOT_AFTER.labels(self._namespace, self._name).set(found.not_after)
            logger.info("The gateway's certificate of %s has the serial number %s", secret, found.serial)
            self._on_change()
        self._report(find_lapse(found, secret, time.time()))

    async def _read(self, secret: str) -> Certificate | Refusal:
        try:
            body = await self._client.get(SECRETS, self._namespace, self._name)
        except ApiError as error:
            if error.status != 403:
                raise
            message = f"{secret} may not be read: grant the operator get on secrets in that namespace"
            return Refusal(Code.SECRET_FORBIDDEN, message)
        if body is None:
            return Refusal(
                Code.SECRET_NOT_FOUND,
                f"{secret} does not exist: create it, or start the operator without --gateway-tls-secret",
            )
        try:
            data = {
                key: base64.b64decode(value, validate=True) for key, value in (body.get("data") or {}).items()
            }
        except (binascii.Error, ValueError):
            return Refusal(Code.SECRET_INVALID, f"{secret} is not base64: correct it")
        return read_certificate(data, secret)

    def _report(self, problem: Reason | None) -> None:
        """Say what is wrong, once for each change."""
        if problem == self._problem:
            return
        if self._problem is not None:
            CERTIFICATE_PROBLEM.remove(self._namespace, self._name, self._problem.code)
        if problem is None:
            logger.info("The gateway's certificate is good again")
        else:
            CERTIFICATE_PROBLEM.labels(self._namespace, self._name, problem.code).set(1)
            fields = about(f"{self._namespace}/{self._name}", SECRETS.kind, problem.code)
            logger.error("The gateway's certificate: %s: %s", problem.code, problem.message, extra=fields)
        self._problem = problem
