"""TLS from Envoy to the operator: both show a certificate, and both check who the other is.

Envoy reads its certificate and its authority from files that Kubernetes keeps up to date (a mounted Secret). It watches
their folder only for secrets that come by SDS, so two small files beside the bootstrap say where they are
(https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/security/secret#certificate-rotation). Connections that are
open stay as they are; the next one has the new certificate.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from modelyard.render.envoy.typed import Json, extension, typed

AUTHORITY_KEY: Final = "ca.crt"
CERTIFICATE_KEY: Final = "tls.crt"
PRIVATE_KEY: Final = "tls.key"
"""Keys of the Secret, and so names of the files: those of cert-manager and of `kubectl create secret tls`."""

GATEWAY_IDENTITY: Final = "spiffe://modelyard.dev/gateway"
"""URI in the certificate of every Envoy of the gateway; the operator serves nobody without it."""

_CERTIFICATE: Final = "xds-certificate"
_AUTHORITY: Final = "xds-authority"
"""Names of the secrets, and of their files."""


@dataclass(frozen=True, slots=True)
class ControlPlaneTls:
    """Where Envoy finds what it needs for TLS to the operator."""

    folder: str
    """Holds `ca.crt`, `tls.crt` and `tls.key`; they are replaced together, as Kubernetes does it with a mounted
    Secret."""
    server_name: str
    """DNS name that the operator's certificate must have."""
    files: str
    """Folder of the two files of `secret_files`, as Envoy sees it."""


def upstream_tls(tls: ControlPlaneTls) -> Json:
    """Return the transport socket of the operator's cluster."""
    return extension(
        "envoy.transport_sockets.tls",
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        {
            "sni": tls.server_name,
            "common_tls_context": {
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "tls_certificate_sds_secret_configs": [_from_file(tls, _CERTIFICATE)],
                "validation_context_sds_secret_config": _from_file(tls, _AUTHORITY),
            },
        },
    )


def secret_files(tls: ControlPlaneTls) -> dict[str, Json]:
    """Return the files that the bootstrap names, by path."""
    certificate = {
        "tls_certificate": {
            "certificate_chain": _file(tls, CERTIFICATE_KEY),
            "private_key": _file(tls, PRIVATE_KEY),
            "watched_directory": {"path": tls.folder},
        }
    }
    name = {"san_type": "DNS", "matcher": {"exact": tls.server_name}}
    authority = {
        "validation_context": {
            "trusted_ca": _file(tls, AUTHORITY_KEY),
            "watched_directory": {"path": tls.folder},
            "match_typed_subject_alt_names": [name],
        }
    }
    return {
        _path(tls, name): {
            "resources": [typed("envoy.extensions.transport_sockets.tls.v3.Secret", {"name": name, **secret})]
        }
        for name, secret in ((_CERTIFICATE, certificate), (_AUTHORITY, authority))
    }


def _from_file(tls: ControlPlaneTls, name: str) -> Json:
    source = {"path": _path(tls, name)}
    return {"name": name, "sds_config": {"path_config_source": source, "resource_api_version": "V3"}}


def _path(tls: ControlPlaneTls, name: str) -> str:
    return str(PurePosixPath(tls.files) / f"{name}.json")


def _file(tls: ControlPlaneTls, name: str) -> Json:
    return {"filename": str(PurePosixPath(tls.folder) / name)}
