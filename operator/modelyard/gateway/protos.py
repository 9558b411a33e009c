"""The protobuf API of the pinned Envoy, as dynamic classes.

No published Python package carries the API of this Envoy version completely, so the descriptors come from the
executable itself (`dev/envoy/extract_descriptors.py`). Resources are written as JSON-shaped dictionaries and
parsed here: an unknown field or a wrong type is an error before anything reaches Envoy.
"""

import gzip
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message, message_factory

DESCRIPTOR_FILE = Path(__file__).parent / "descriptors" / "envoy-1.40.0.binpb.gz"
"""A gzipped `FileDescriptorSet`; licence and origin are in the NOTICE file beside it."""

ROOT_FILES = (
    "envoy/config/bootstrap/v3/bootstrap.proto",
    "envoy/config/cluster/v3/cluster.proto",
    "envoy/config/endpoint/v3/endpoint.proto",
    "envoy/config/listener/v3/listener.proto",
    "envoy/config/route/v3/route.proto",
    "envoy/extensions/access_loggers/stats/v3/stats.proto",
    "envoy/extensions/content_parsers/json/v3/json_content_parser.proto",
    "envoy/extensions/filters/http/credential_injector/v3/credential_injector.proto",
    "envoy/extensions/filters/http/ext_proc/v3/ext_proc.proto",
    "envoy/extensions/filters/http/fault/v3/fault.proto",
    "envoy/extensions/filters/http/header_mutation/v3/header_mutation.proto",
    "envoy/extensions/filters/http/health_check/v3/health_check.proto",
    "envoy/extensions/filters/http/json_to_metadata/v3/json_to_metadata.proto",
    "envoy/extensions/filters/http/local_ratelimit/v3/local_rate_limit.proto",
    "envoy/extensions/filters/http/lua/v3/lua.proto",
    "envoy/extensions/filters/http/on_demand/v3/on_demand.proto",
    "envoy/extensions/filters/http/ratelimit/v3/rate_limit.proto",
    "envoy/extensions/filters/http/router/v3/router.proto",
    "envoy/extensions/filters/http/set_filter_state/v3/set_filter_state.proto",
    "envoy/extensions/filters/http/sse_to_metadata/v3/sse_to_metadata.proto",
    "envoy/extensions/filters/http/upstream_codec/v3/upstream_codec.proto",
    "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto",
    "envoy/extensions/http/early_header_mutation/header_mutation/v3/header_mutation.proto",
    "envoy/extensions/http/injected_credentials/generic/v3/generic.proto",
    "envoy/extensions/load_balancing_policies/least_request/v3/least_request.proto",
    "envoy/extensions/load_balancing_policies/maglev/v3/maglev.proto",
    "envoy/extensions/load_balancing_policies/override_host/v3/override_host.proto",
    "envoy/extensions/resource_monitors/downstream_connections/v3/downstream_connections.proto",
    "envoy/extensions/resource_monitors/fixed_heap/v3/fixed_heap.proto",
    "envoy/extensions/retry/host/previous_hosts/v3/previous_hosts.proto",
    "envoy/extensions/router/cluster_specifiers/priority_group/v3/priority_group.proto",
    "envoy/extensions/transport_sockets/tls/v3/secret.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls.proto",
    "envoy/extensions/upstreams/http/v3/http_protocol_options.proto",
    "envoy/service/discovery/v3/ads.proto",
    "envoy/service/ext_proc/v3/external_processor.proto",
    "envoy/service/ratelimit/v3/rls.proto",
    "envoy/type/matcher/v3/http_inputs.proto",
)
"""The files whose messages Modelyard builds; what they import comes along."""

DynamicMessage: TypeAlias = Any
"""A message whose fields are known at run time only; protobuf checks them when they are set."""

TYPE_URL_PREFIX = "type.googleapis.com/"

CLUSTER = TYPE_URL_PREFIX + "envoy.config.cluster.v3.Cluster"
ENDPOINTS = TYPE_URL_PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER = TYPE_URL_PREFIX + "envoy.config.listener.v3.Listener"
SECRET = TYPE_URL_PREFIX + "envoy.extensions.transport_sockets.tls.v3.Secret"
ROUTES = TYPE_URL_PREFIX + "envoy.config.route.v3.RouteConfiguration"

DELTA_REQUEST = "envoy.service.discovery.v3.DeltaDiscoveryRequest"
DELTA_RESPONSE = "envoy.service.discovery.v3.DeltaDiscoveryResponse"


@cache
def pool() -> descriptor_pool.DescriptorPool:
    """Return a descriptor pool with the whole API."""
    files = descriptor_pb2.FileDescriptorSet.FromString(gzip.decompress(DESCRIPTOR_FILE.read_bytes()))
    result = descriptor_pool.DescriptorPool()
    for file in files.file:
        result.Add(file)
    return result


@cache
def message_class(name: str) -> type[message.Message]:
    """Return the class of a message by its full name, for example `envoy.config.cluster.v3.Cluster`.

    Raises KeyError if the API has no such message.
    """
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(name))


def parse(name: str, value: dict[str, Any]) -> DynamicMessage:
    """Return the message `name` from its JSON form.

    Raises json_format.ParseError if a field is unknown or has the wrong type.
    """
    return json_format.ParseDict(value, message_class(name)(), descriptor_pool=pool())


def encode(type_url: str, value: dict[str, Any]) -> bytes:
    """Return the bytes of a message given in JSON form; equal values give equal bytes."""
    encoded: bytes = parse(type_url.removeprefix(TYPE_URL_PREFIX), value).SerializeToString(
        deterministic=True
    )
    return encoded
