"""TLS towards clients: what the listener asks for, and the secret with the gateway's certificate."""

from modelyard.core.certificates import Certificate
from modelyard.render.envoy.typed import Json, ads, extension

CERTIFICATE_SECRET = "gateway-certificate"  # noqa: S105  (a name, no password)
"""Name under which Envoy asks for the certificate; those of providers' keys have a colon."""


def downstream_tls() -> Json:
    """Return the listener's TLS. The certificate comes by itself, so that a new one leaves the listener as it is.

    Until it has come Envoy closes every connection.
    """
    return extension(
        "envoy.transport_sockets.tls",
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        {
            "common_tls_context": {
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_certificate_sds_secret_configs": [{"name": CERTIFICATE_SECRET, "sds_config": ads()}],
            },
        },
    )


def certificate_secret(certificate: Certificate) -> Json:
    """Return the secret with the gateway's certificate. Envoy shows the key as redacted."""
    return {
        "name": CERTIFICATE_SECRET,
        "tls_certificate": {
            "certificate_chain": {"inline_string": certificate.chain},
            "private_key": {"inline_string": certificate.key},
        },
    }
