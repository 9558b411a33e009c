"""Certificates between operator and gateway: when they are renewed, and what everybody believes meanwhile."""

import datetime as dt

import pytest
from cryptography import x509

from modelyard.gateway.authority import (
    AUTHORITY_LIFETIME,
    LIFETIME,
    SPREAD,
    CertificatesUnusableError,
    Files,
    read_files,
    renew,
)
from modelyard.render.envoy.control_plane import GATEWAY_IDENTITY

NAME = "modelyard-xds.modelyard-system.svc"
NOW = dt.datetime(2026, 11, 30, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


def make(now=NOW, name=NAME) -> tuple[Files, Files]:
    server, client = renew(None, None, name, now)
    assert client is not None
    return server, client


def certificates(text: str) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(text.encode())


def names(files: Files) -> list[str]:
    (certificate,) = certificates(files.chain)
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(item.value) for item in found]


def believed(files: Files, by: Files) -> bool:
    """Whether the certificate of one is signed by an authority that the other believes."""
    (certificate,) = certificates(files.chain)
    for authority in certificates(by.authorities):
        if authority.subject == certificate.issuer:
            certificate.verify_directly_issued_by(authority)
            return True
    return False


def test_the_first_ones_say_who_they_are_and_believe_each_other():
    server, client = make()
    assert (names(server), names(client)) == ([NAME], [GATEWAY_IDENTITY])
    assert server.authorities == client.authorities
    assert believed(server, client)
    assert believed(client, server)
    assert client.authority_key == ""
    assert "PRIVATE" not in server.authorities + server.chain
    assert "ca.key" not in client.data()


def test_nothing_is_due_for_two_thirds_of_the_lifetime():
    server, client = make()
    assert renew(server, client, NAME, NOW + LIFETIME * 0.66) == (server, client)
    later = NOW + LIFETIME * 0.67
    new_server, new_client = renew(server, client, NAME, later)
    assert new_client is not None
    assert new_server.chain != server.chain
    assert new_client.chain != client.chain
    assert new_server.authorities == new_client.authorities == server.authorities
    assert new_server.not_after == pytest.approx((later + LIFETIME).timestamp())


def test_what_is_read_is_what_was_written():
    for files in make():
        assert read_files(files.data(), "Secret a/b") == files


def test_another_name_needs_another_certificate_of_the_operator_alone():
    server, client = make()
    new_server, new_client = renew(server, client, "another.example", NOW + DAY)
    assert names(new_server) == ["another.example"]
    assert new_client == client


@pytest.mark.parametrize("lost", ["server", "client"])
def test_a_deleted_secret_is_made_again_and_both_fit(lost):
    server, client = make()
    new_server, new_client = renew(
        None if lost == "server" else server, None if lost == "client" else client, NAME, NOW + DAY
    )
    assert new_client is not None
    assert believed(new_server, new_client)
    assert believed(new_client, new_server)
    assert (new_server == server) == (lost == "client")


def test_for_twelve_years_whatever_is_in_a_pod_opens_the_connection():
    """Envoy's pods have yesterday's Secret at times: no renewal, not even of the authority, may shut them out."""
    server, client = make()
    first, now, authorities, changes, changed = server.authorities, NOW, {server.authorities}, 0, True
    while now < NOW + AUTHORITY_LIFETIME * 1.2:
        # The day after a change is of interest; else less often than a certificate is due.
        now += DAY if changed else 20 * DAY
        new_server, new_client = renew(server, client, NAME, now)
        assert new_client is not None
        for files in (new_server, new_client):
            (leaf,) = certificates(files.chain)
            assert leaf.not_valid_after_utc > now
            assert all(item.not_valid_after_utc > now for item in certificates(files.authorities))
        # An operator reads its own Secret before it shows anything; Envoy's may be of yesterday.
        for envoy in (client, new_client):
            assert believed(new_server, envoy)
            assert believed(envoy, new_server)
        changed = (new_server, new_client) != (server, client)
        changes += new_client != client
        authorities.add(new_server.authorities)
        server, client = new_server, new_client
    assert len(authorities) == 3, "one, both, the other"
    assert first not in server.authorities
    assert changes > 50, "each certificate lasts 60 days and a few"


def test_a_new_authority_signs_only_when_everybody_has_heard_of_it():
    server, client = make()
    due = NOW + AUTHORITY_LIFETIME * 0.67
    # Certificates of that day, by the old authority.
    server, client = renew(server, client, NAME, due - LIFETIME * 0.7 - DAY)
    assert len(certificates(server.authorities)) == 1
    server, client = renew(server, client, NAME, due)
    assert client is not None
    assert len(certificates(server.authorities)) == 2
    new, old = certificates(server.authorities)
    assert certificates(server.chain)[0].issuer == old.subject, "although it is due"
    server, client = renew(server, client, NAME, due + SPREAD)
    assert client is not None
    assert certificates(server.chain)[0].issuer == certificates(client.chain)[0].issuer == new.subject


def test_certificates_of_somebody_else_are_used_and_left_alone():
    server, client = make()
    foreign = Files(server.authorities, server.chain, server.key)
    long_after = NOW + 2 * LIFETIME
    assert renew(foreign, client, "another.example", long_after) == (foreign, client)
    assert renew(foreign, None, NAME, long_after) == (foreign, None)


@pytest.mark.parametrize("key", ["tls.crt", "tls.key", "ca.crt", "ca.key"])
def test_what_does_not_belong_together_is_refused_without_a_word_of_it(key):
    server, other = make()[0], make()[0]
    data = {**server.data(), key: other.data()[key]}
    if key == "ca.crt":
        data[key] = b"-----BEGIN CERTIFICATE-----\nnonsense"
    with pytest.raises(CertificatesUnusableError, match="Secret a/b") as refused:
        read_files(data, "Secret a/b")
    assert "delete Secret a/b" in str(refused.value)
    assert other.data()["tls.key"].decode().splitlines()[1] not in str(refused.value)


def test_no_key_is_shown():
    server, _ = make()
    shown = repr(server)
    assert server.key not in shown
    assert server.authority_key not in shown
