"""The certificates of operator and gateway for each other: made, judged and renewed, without any place to keep them.

One authority signs both. It exists for this connection alone: what it signs opens nothing else. Its key stays with the
operator's own certificate; the gateway gets none of both.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from modelyard.api.meta import Refusal
from modelyard.core.certificates import read_certificate
from modelyard.render.envoy.control_plane import (
    AUTHORITY_KEY,
    CERTIFICATE_KEY,
    GATEWAY_IDENTITY,
    PRIVATE_KEY,
)

AUTHORITY_PRIVATE_KEY: Final = "ca.key"
"""Key of the operator's Secret with the authority's private key. Without it the certificates are somebody else's, for
example cert-manager's, and only read."""

AUTHORITY_LIFETIME: Final = dt.timedelta(days=3650)
"""Ten years, as kubeadm gives the authorities of a cluster
(https://kubernetes.io/docs/tasks/administer-cluster/kubeadm/kubeadm-certs/)."""

LIFETIME: Final = dt.timedelta(days=90)
"""cert-manager's default for certificates (https://cert-manager.io/docs/usage/certificate/)."""

REST: Final = 1 / 3
"""Share of a lifetime that is left when a certificate is renewed: cert-manager's default too. With 90 days an operator
may be away for a month, and a pod may keep an old file for as long."""

SPREAD: Final = dt.timedelta(days=1)
"""How long a new authority is only announced before it signs: kubelets bring a changed Secret into pods within minutes
(https://kubernetes.io/docs/concepts/configuration/secret/#using-secrets-as-files-from-a-pod)."""

BACKDATE: Final = dt.timedelta(minutes=5)
"""Certificates are valid from this long ago, for clocks that are a little behind."""

_NAME_LIMIT: Final = 64
"""Characters of a common name (RFC 5280, appendix A.1, ub-common-name)."""


class CertificatesUnusableError(ValueError):
    """What a Secret holds cannot be used; the message names the remedy and tells no key."""


@dataclass(frozen=True, slots=True)
class Files:
    """What one of the two Secrets holds, as text in PEM form."""

    authorities: str
    """Everybody who is believed, the one that signs first."""
    chain: str
    key: str = field(repr=False)
    authority_key: str = field(default="", repr=False)
    """Empty in the gateway's Secret, and where somebody else issues."""

    def data(self) -> dict[str, bytes]:
        """Return it by the Secret's keys."""
        values = {
            AUTHORITY_KEY: self.authorities,
            CERTIFICATE_KEY: self.chain,
            PRIVATE_KEY: self.key,
            AUTHORITY_PRIVATE_KEY: self.authority_key,
        }
        return {name: value.encode() for name, value in values.items() if value}

    @property
    def not_after(self) -> float:
        """When the certificate ends, as Unix time."""
        return _leaf(self).not_valid_after_utc.timestamp()

    @property
    def serial(self) -> str:
        """Serial number of the certificate, in hexadecimal."""
        return f"{_leaf(self).serial_number:x}"


def read_files(data: Mapping[str, bytes], secret: str) -> Files:
    """Return what a Secret holds; `secret` names it for people.

    Raises CertificatesUnusableError if parts are missing or do not belong together.
    """
    remedy = f"delete {secret}, and the operator makes a new one"
    found = read_certificate(data, secret)
    if isinstance(found, Refusal):
        raise CertificatesUnusableError(f"{found.message}; or {remedy}")
    try:
        authorities = x509.load_pem_x509_certificates(data.get(AUTHORITY_KEY, b""))
    except ValueError as error:
        message = f"{AUTHORITY_KEY} of {secret} holds no certificate in PEM form: correct it, or {remedy}"
        raise CertificatesUnusableError(message) from error
    key = data.get(AUTHORITY_PRIVATE_KEY, b"")
    if key and not _is_key_of(key, authorities[0]):
        message = f"{AUTHORITY_PRIVATE_KEY} of {secret} is not the key of the first authority: {remedy}"
        raise CertificatesUnusableError(message)
    return Files(_pem(*authorities), found.chain, found.key, key.decode())


def renew(
    server: Files | None, client: Files | None, name: str, now: dt.datetime
) -> tuple[Files, Files | None]:
    """Return what the Secrets of the operator and the gateway should hold; what needs no change comes back as it is.

    `name` is the operator's DNS name. The gateway's may be None only where somebody else issues both.
    """
    if server is not None and not server.authority_key:
        return server, client
    if server is None:
        server = _new_authority(now)
    elif _is_due(_authority(server), now):
        server = _announce_authority(server, now)
    server = _forget_expired(server, now)
    names: tuple[x509.GeneralName, ...] = (x509.DNSName(name),)
    if not server.chain or _must_renew(server, names, now):
        server = _sign(server, server, "modelyard-operator", names, now)
    identity: tuple[x509.GeneralName, ...] = (x509.UniformResourceIdentifier(GATEWAY_IDENTITY),)
    if client is None:
        client = Files("", "", "")
    client = replace(client, authorities=server.authorities, authority_key="")
    if not client.chain or _must_renew(client, identity, now, _authority(server)):
        client = _sign(client, server, "modelyard-gateway", identity, now)
    return server, client


def _must_renew(
    files: Files,
    names: tuple[x509.GeneralName, ...],
    now: dt.datetime,
    signer: x509.Certificate | None = None,
) -> bool:
    leaf, signer = _leaf(files), signer or _authority(files)
    good = (
        _names(leaf) == names
        and now < leaf.not_valid_after_utc
        and any(_signed(leaf, authority) for authority in _load(files.authorities))
    )
    # An authority that not everybody knows yet signs only where nothing else helps.
    return not good or (_is_due(leaf, now) and now - signer.not_valid_before_utc >= SPREAD)


def _is_due(certificate: x509.Certificate, now: dt.datetime) -> bool:
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return certificate.not_valid_after_utc - now <= lifetime * REST


def _new_authority(now: dt.datetime) -> Files:
    key = ec.generate_private_key(ec.SECP256R1())
    # A name of its own: whoever believes two authorities finds the one that signed by its name.
    serial = x509.random_serial_number()
    subject = _subject(f"modelyard-xds-authority-{serial:x}"[:_NAME_LIMIT])
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _builder(subject, subject, key.public_key(), now, AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    return Files(_pem(certificate), "", "", _private(key))


def _announce_authority(files: Files, now: dt.datetime) -> Files:
    """Return the files with a new authority before those that are believed already. Certificates stay."""
    new = _new_authority(now)
    return replace(files, authorities=new.authorities + files.authorities, authority_key=new.authority_key)


def _forget_expired(files: Files, now: dt.datetime) -> Files:
    signer, *others = _load(files.authorities)
    return replace(files, authorities=_pem(signer, *(o for o in others if now < o.not_valid_after_utc)))


def _sign(
    files: Files, issuer: Files, common_name: str, names: tuple[x509.GeneralName, ...], now: dt.datetime
) -> Files:
    key = ec.generate_private_key(ec.SECP256R1())
    authority = _authority(issuer)
    signer = load_pem_private_key(issuer.authority_key.encode(), password=None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)  # noqa: S101  (checked when it was read)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    purpose = (
        ExtendedKeyUsageOID.SERVER_AUTH
        if isinstance(names[0], x509.DNSName)
        else ExtendedKeyUsageOID.CLIENT_AUTH
    )
    public = signer.public_key()
    certificate = (
        _builder(_subject(common_name), authority.subject, key.public_key(), now, LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return replace(files, authorities=issuer.authorities, chain=_pem(certificate), key=_private(key))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: dt.datetime,
    lifetime: dt.timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + lifetime)
    )


def _subject(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _load(text: str) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(text.encode())


def _leaf(files: Files) -> x509.Certificate:
    return _load(files.chain)[0]


def _authority(files: Files) -> x509.Certificate:
    return _load(files.authorities)[0]


def _names(certificate: x509.Certificate) -> tuple[x509.GeneralName, ...]:
    try:
        return tuple(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return ()


def _signed(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _is_key_of(pem: bytes, certificate: x509.Certificate) -> bool:
    try:
        key = load_pem_private_key(pem, password=None)
    except Exception:  # noqa: BLE001  (the parser's own words may quote the key)
        return False
    return isinstance(key, ec.EllipticCurvePrivateKey) and key.public_key() == certificate.public_key()


def _pem(*certificates: x509.Certificate) -> str:
    return "".join(item.public_bytes(Encoding.PEM).decode() for item in certificates)


def _private(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
