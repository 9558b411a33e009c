"""The certificate of the gateway, as cert-manager and `kubectl create secret tls` write it into a Secret.

https://kubernetes.io/docs/concepts/configuration/secret/#tls-secrets
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from modelyard.api.meta import Refusal
from modelyard.core.reasons import Code, Reason

CERTIFICATE_KEY: Final = "tls.crt"
"""Key of the Secret with the certificate, followed by those between it and its authority."""

PRIVATE_KEY: Final = "tls.key"
"""Key of the Secret with the private key. What else the Secret holds (`ca.crt`) is for clients."""

_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
"""Curves that Envoy 1.40 takes (https://www.envoyproxy.io/docs/envoy/v1.40.0/intro/arch_overview/security/ssl)."""

_LEAST_RSA_BITS: Final = 2048
"""The same, for RSA."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its private key, both checked and in the form that Envoy is sent."""

    chain: str
    """PEM, the certificate itself first."""
    key: str = field(repr=False)
    """PEM."""
    serial: str
    """Serial number as people compare it: hexadecimal."""
    not_before: float
    """Unix time in seconds."""
    not_after: float
    """Unix time in seconds."""


def read_certificate(data: Mapping[str, bytes], secret: str) -> Certificate | Refusal:
    """Return the certificate that a Secret holds, or why it cannot be served; no message tells any of the key.

    `secret` names the Secret for people.
    """
    for name in (CERTIFICATE_KEY, PRIVATE_KEY):
        if name not in data:
            return _invalid(
                f"{secret} has no key {name}: it must be of the type kubernetes.io/tls, with "
                f"{CERTIFICATE_KEY} and {PRIVATE_KEY}"
            )
    try:
        chain = x509.load_pem_x509_certificates(data[CERTIFICATE_KEY])
        public = chain[0].public_key()
    except Exception:  # noqa: BLE001  (whatever the parser stumbles over, it is no certificate)
        return _invalid(f"{CERTIFICATE_KEY} of {secret} holds no certificate in PEM form: correct it")
    key = _read_key(data[PRIVATE_KEY])
    if key is None:
        return _invalid(
            f"{PRIVATE_KEY} of {secret} holds no private key in PEM form without a password: correct it"
        )
    if not _is_usable(key):
        return _invalid(
            f"Envoy takes RSA keys of {_LEAST_RSA_BITS} bits or more and ECDSA keys on P-256, P-384 or P-521: have "
            f"{secret} issued with one"
        )
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if public.public_bytes(*spki) != key.public_key().public_bytes(*spki):
        return _invalid(
            f"{PRIVATE_KEY} of {secret} does not belong to the first certificate of {CERTIFICATE_KEY}: put both in "
            "together, the gateway's own certificate before those of its authorities"
        )
    return Certificate(
        chain="".join(item.public_bytes(Encoding.PEM).decode() for item in chain),
        key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        serial=f"{chain[0].serial_number:x}",
        not_before=chain[0].not_valid_before_utc.timestamp(),
        not_after=chain[0].not_valid_after_utc.timestamp(),
    )


def find_lapse(certificate: Certificate, secret: str, now: float) -> Reason | None:
    """Return why clients will refuse a certificate at the Unix time `now`, as far as its dates tell.

    It is served all the same: some clients look away, and without it none would get in.
    """
    if now >= certificate.not_after:
        return Reason(
            Code.CERTIFICATE_EXPIRED,
            f"the certificate of {secret} has expired: renew it; it is served meanwhile",
        )
    if now < certificate.not_before:
        return Reason(
            Code.CERTIFICATE_NOT_YET_VALID,
            f"the certificate of {secret} is not valid yet: compare the clocks of its issuer and of this machine; it "
            "is served meanwhile",
        )
    return None


def _invalid(message: str) -> Refusal:
    return Refusal(Code.SECRET_INVALID, message)


def _read_key(pem: bytes) -> PrivateKeyTypes | None:
    try:
        return load_pem_private_key(pem, password=None)
    except Exception:  # noqa: BLE001  (the parser's own words may quote the key)
        return None


def _is_usable(key: PrivateKeyTypes) -> bool:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.key_size >= _LEAST_RSA_BITS
    return isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, _CURVES)
