"""The Envoy cluster of a provider's model, and the secret with the provider's key."""

from collections.abc import Iterable

from modelyard.core.routing import ExternalUpstream
from modelyard.render.envoy import scripts
from modelyard.render.envoy.breakers import circuit_breakers
from modelyard.render.envoy.clusters import attempt_headers, attempt_script, escape_model, http_options
from modelyard.render.envoy.names import (
    AUTHORITY_HEADER,
    METADATA,
    PATH_HEADER,
    SERVED_MODEL_HEADER,
    USAGE_HEADER,
    encode_stat,
)
from modelyard.render.envoy.settings import GatewaySettings
from modelyard.render.envoy.typed import Json, ads, extension, seconds, socket_address

HTTPS_PORT = 443
"""Left out of the authority, as clients do (RFC 9110, section 7.2)."""


_REFUSING_PORT = 1
"""A port where nothing listens: tcpmux (RFC 1078), which no system serves any more. Whatever did would have to show
the provider's certificate before it saw a byte."""

_REFUSING_HOSTS = tuple(f"127.0.0.{number}" for number in range(1, 10))
"""Addresses of the own host that refuse every connection; see `_MAX_EJECTION_PERCENT`."""

_MAX_EJECTION_PERCENT = 90
"""How many of a cluster's addresses may be left out at a time, those that refuse included. Envoy leaves out one more
while the share is below this. With nine that refuse, all of a provider's addresses can be left out (up to 90 of them),
and never all that refuse: a cluster without any address fails a request for good."""


def provider_cluster(upstream: ExternalUpstream, settings: GatewaySettings) -> Json:
    """Return the cluster of one model of a provider: its requests leave over TLS and with the provider's key."""
    chain = [
        attempt_headers(
            {
                SERVED_MODEL_HEADER: escape_model(upstream.model),
                AUTHORITY_HEADER: _authority(upstream),
                PATH_HEADER: upstream.path,
                **({USAGE_HEADER: "true"} if upstream.asks_usage else {}),
            }
        ),
        attempt_script("provider_request", scripts.provider_request()),
    ]
    if upstream.keyed:
        chain.append(_key_injector(secret_name(upstream.provider)))
        chain.append(attempt_script("provider_key", scripts.provider_key()))
    return {
        "name": upstream.cluster,
        # What the operator reads of attempts: with a dot of a model's name in it, Envoy would not know where it ends.
        "alt_stat_name": encode_stat(upstream.cluster),
        "type": "STRICT_DNS",
        "respect_dns_ttl": True,
        # Many pod networks have no way out over IPv6.
        "dns_lookup_family": "V4_PREFERRED",
        "connect_timeout": seconds(settings.provider_connect_timeout),
        "metadata": {"filter_metadata": {METADATA: {"deployment": upstream.cluster}}},
        "load_assignment": {
            "cluster_name": upstream.cluster,
            "endpoints": [
                _endpoints([upstream.host], upstream.port, priority=0),
                # Envoy tries no other target where a cluster has no address at all. So a name that cannot be resolved,
                # and a provider that is left out, lead to an address that refuses: a failure like any other, at once.
                _endpoints(_REFUSING_HOSTS, _REFUSING_PORT, priority=1),
            ],
        },
        # What is left out stays left out, however few addresses remain.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "outlier_detection": _outlier_detection(settings),
        "circuit_breakers": circuit_breakers(settings),
        "transport_socket": _tls(upstream, settings),
        # The rewrite needs the whole body in the upstream chain.
        "per_connection_buffer_limit_bytes": settings.max_body_bytes,
        "typed_extension_protocol_options": http_options(settings.provider_idle_timeout, chain),
    }


def secret_name(provider: str) -> str:
    """Return the name under which Envoy asks for a provider's key."""
    return f"provider-key:{provider}"


def provider_secret(provider: str, key: str) -> Json:
    """Return the secret with a provider's key. Envoy shows none of it in its dumps."""
    return {
        "name": secret_name(provider),
        "generic_secret": {"secret": {"inline_string": key}},
    }


def _outlier_detection(settings: GatewaySettings) -> Json:
    """Return when an address of a provider is left out, and for how long."""
    return {
        # A 500 is about the request as often as about the provider, and a 429 about how many came before it.
        "enforcing_consecutive_5xx": 0,
        "enforcing_success_rate": 0,
        "consecutive_gateway_failure": settings.provider_failures,
        "enforcing_consecutive_gateway_failure": 100,
        "interval": "1s",
        "base_ejection_time": seconds(settings.provider_ejection_seconds),
        "max_ejection_time": seconds(
            max(settings.provider_ejection_limit, settings.provider_ejection_seconds)
        ),
        "max_ejection_percent": _MAX_EJECTION_PERCENT,
    }


def _endpoints(hosts: Iterable[str], port: int, priority: int) -> Json:
    addresses = [{"endpoint": {"address": socket_address(host, port)}} for host in hosts]
    return {"priority": priority, "lb_endpoints": addresses}


def _authority(upstream: ExternalUpstream) -> str:
    return upstream.host if upstream.port == HTTPS_PORT else f"{upstream.host}:{upstream.port}"


def _tls(upstream: ExternalUpstream, settings: GatewaySettings) -> Json:
    trusted = {"filename": settings.ca_file} if upstream.trust is None else {"inline_string": upstream.trust}
    return extension(
        "envoy.transport_sockets.tls",
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        {
            "sni": upstream.host,
            "common_tls_context": {
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "validation_context": {
                    "trusted_ca": trusted,
                    "match_typed_subject_alt_names": [
                        {"san_type": "DNS", "matcher": {"exact": upstream.host}}
                    ],
                },
            },
        },
    )


def _key_injector(secret: str) -> Json:
    """Return the filter that adds the key, if Envoy has it."""
    return extension(
        "envoy.filters.http.credential_injector",
        "envoy.extensions.filters.http.credential_injector.v3.CredentialInjector",
        {
            "overwrite": True,
            # Its own refusal is a 401 in plain text, as if the client's key were wrong: the script after it refuses.
            "allow_request_without_credential": True,
            "credential": extension(
                "envoy.http.injected_credentials.generic",
                "envoy.extensions.http.injected_credentials.generic.v3.Generic",
                {
                    "credential": {"name": secret, "sds_config": ads()},
                    "header": "authorization",
                    "header_value_prefix": "Bearer ",
                },
            ),
        },
    )
