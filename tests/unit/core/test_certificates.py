"""The gateway's certificate: what is served, what is refused and in which words."""

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from modelyard.api.meta import Refusal
from modelyard.core.certificates import Certificate, find_lapse, read_certificate
from modelyard.core.reasons import Code

SECRET = "Secret system/gateway"
START, END = dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.datetime(2026, 4, 1, tzinfo=dt.UTC)


def pem(key, encryption=None) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def issue(key, name="gateway", signed_by=None, serial=0xABC) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(START)
        .not_valid_after(END)
    )
    signer = signed_by or key
    digest = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(signer, digest).public_bytes(Encoding.PEM)


KEY, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
GOOD = {"tls.crt": issue(KEY), "tls.key": pem(KEY)}


def refused(data) -> str:
    found = read_certificate(data, SECRET)
    assert isinstance(found, Refusal)
    assert found.reason == Code.SECRET_INVALID
    assert SECRET in found.message
    for value in data.values():
        for line in value.decode(errors="replace").splitlines():
            assert len(line) < 20 or line not in found.message
    return found.message


def test_a_good_one_is_taken_as_it_is():
    found = read_certificate({**GOOD, "ca.crt": b"for clients"}, SECRET)
    assert isinstance(found, Certificate)
    assert (found.serial, found.not_before, found.not_after) == ("abc", START.timestamp(), END.timestamp())
    assert found.chain.encode() == GOOD["tls.crt"]
    assert "PRIVATE KEY" in found.key
    assert "PRIVATE" not in repr(found)
    assert found.key.splitlines()[1] not in repr(found)


def test_a_chain_stays_in_its_order_and_loses_what_stands_between():
    authority = issue(OTHER, "authority")
    chain = b"the gateway's own\n" + GOOD["tls.crt"] + b"\nits authority\n" + authority
    found = read_certificate({**GOOD, "tls.crt": chain}, SECRET)
    assert isinstance(found, Certificate)
    assert found.chain.encode() == GOOD["tls.crt"] + authority


@pytest.mark.parametrize(
    "key", [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())]
)
def test_keys_that_envoy_takes(key):
    assert isinstance(read_certificate({"tls.crt": issue(key), "tls.key": pem(key)}, SECRET), Certificate)


@pytest.mark.parametrize("missing", ["tls.crt", "tls.key"])
def test_a_missing_half_is_named(missing):
    message = refused({key: value for key, value in GOOD.items() if key != missing})
    assert f"has no key {missing}" in message
    assert "kubernetes.io/tls" in message


@pytest.mark.parametrize(
    "value", [b"", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate(value):
    assert "tls.crt" in refused({**GOOD, "tls.crt": value})


@pytest.mark.parametrize(
    "value", [b"", b"\xff", b"secret words that nobody may see", pem(KEY, BestAvailableEncryption(b"x"))]
)
def test_what_is_no_key(value):
    assert "without a password" in refused({**GOOD, "tls.key": value})


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 1024),
        ec.generate_private_key(ec.SECP256K1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
)
def test_keys_that_envoy_refuses(key):
    assert "P-256" in refused({"tls.crt": issue(key, signed_by=None), "tls.key": pem(key)})


def test_a_key_of_another_certificate():
    assert "does not belong" in refused({**GOOD, "tls.key": pem(OTHER)})
    wrong_order = issue(OTHER, "authority") + GOOD["tls.crt"]
    assert "before those of its authorities" in refused({**GOOD, "tls.crt": wrong_order})


def test_dates_are_a_warning():
    found = read_certificate(GOOD, SECRET)
    assert isinstance(found, Certificate)
    assert find_lapse(found, SECRET, START.timestamp()) is None
    assert find_lapse(found, SECRET, END.timestamp() - 1) is None
    expired, early = (
        find_lapse(found, SECRET, END.timestamp()),
        find_lapse(found, SECRET, START.timestamp() - 1),
    )
    assert expired is not None
    assert expired.code == Code.CERTIFICATE_EXPIRED
    assert early is not None
    assert early.code == Code.CERTIFICATE_NOT_YET_VALID
