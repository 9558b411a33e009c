"""The static part of an Envoy's configuration: who it is, where its control plane is, what it may use."""

from dataclasses import dataclass

from modelyard.render.envoy import scripts
from modelyard.render.envoy.control_plane import ControlPlaneTls, upstream_tls
from modelyard.render.envoy.parts import ARRIVALS
from modelyard.render.envoy.settings import MEBIBYTE
from modelyard.render.envoy.typed import CONTROL_PLANE, Json, ads, extension, seconds, socket_address, typed

STATS_PORT_KEY = "modelyard.stats_port"
"""Key of the node's metadata with the port where its counters can be read."""

_ARRIVALS_TAG = rf"^{ARRIVALS}(\.([^.]+))\.http_local_rate_limit"
"""Takes the route out of the name of an arrival counter (first group) and makes it a label (second group)."""

LEAVE_PATH = "/leave"
"""Path of the stats listener that answers when an Envoy may end (`leave.lua`): the pod's preStop hook."""

_PAUSE, _PAUSE_PATH, _PAUSE_SECONDS = "pause", "/pause", 1.0
"""Cluster and path of an answer that takes so long: the clock of that script."""

_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class BootstrapSettings:
    """What differs between Envoys of one installation. Durations in seconds, sizes in bytes."""

    control_plane_host: str
    """Host name or IP address of the ADS server."""
    control_plane_port: int
    control_plane_tls: ControlPlaneTls | None = None
    """None: the connection is neither encrypted nor authenticated, and gets no keys unless it is on loopback."""
    node_id: str = ""
    """Unique per Envoy. Empty: given on the command line (`--service-node`)."""
    cluster: str = "modelyard-gateway"
    stats_address: str = "0.0.0.0"  # noqa: S104  (scraped from other pods)
    stats_port: int = 9902
    admin_port: int = 9901
    """On loopback only: the admin interface can dump the configuration and stop Envoy."""
    drain_seconds: int = 30
    """How long an Envoy that is to leave serves on at least: until load balancers and nodes know of it."""
    patience_seconds: int = 40
    """After how long without an answer of the operator an Envoy without requests leaves all the same: another operator
    acts within 20 s (`core.lease`), and one that was uninstalled never answers."""
    heap_bytes: int = 1024 * MEBIBYTE
    """Memory above which Envoy first gives memory back, then refuses requests. Below the container's limit."""
    max_connections: int = 50_000
    """Client connections; further ones are closed. Kept below the usual limit of 65,536 open files."""


def bootstrap(settings: BootstrapSettings) -> Json:
    """Return the bootstrap configuration."""
    return {
        "node": {
            "id": settings.node_id,
            "cluster": settings.cluster,
            "metadata": {STATS_PORT_KEY: settings.stats_port},
        },
        "admin": {"address": socket_address(_LOOPBACK, settings.admin_port)},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [
                    {
                        "envoy_grpc": {
                            "cluster_name": CONTROL_PLANE,
                            # Held requests wait for the operator's return, so Envoy asks more often than every 30 s.
                            "retry_policy": {
                                "retry_back_off": {"base_interval": "0.1s", "max_interval": "1s"}
                            },
                        }
                    }
                ],
            },
            "cds_config": ads(),
            "lds_config": ads(),
        },
        "static_resources": {
            "clusters": [_control_plane(settings), _admin_cluster(settings), _pause_cluster(settings)],
            "listeners": [_stats_listener(settings)],
        },
        "stats_config": {"stats_tags": [{"tag_name": "route", "regex": _ARRIVALS_TAG}]},
        "overload_manager": _overload_manager(settings),
    }


def _control_plane(settings: BootstrapSettings) -> Json:
    tls = settings.control_plane_tls
    return {
        **_static_cluster(CONTROL_PLANE, settings.control_plane_host, settings.control_plane_port),
        # A Service's name may move to another operator pod.
        "type": "STRICT_DNS",
        **({"transport_socket": upstream_tls(tls)} if tls is not None else {}),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                {
                    "explicit_http_config": {
                        "http2_protocol_options": {
                            # An operator that vanished without closing is noticed within 15 s.
                            "connection_keepalive": {"interval": seconds(10), "timeout": seconds(5)}
                        }
                    }
                },
            )
        },
    }


def _admin_cluster(settings: BootstrapSettings) -> Json:
    return {**_static_cluster("admin", _LOOPBACK, settings.admin_port), "type": "STATIC"}


def _pause_cluster(settings: BootstrapSettings) -> Json:
    """Return this Envoy's own stats listener as a cluster."""
    loopback = {"0.0.0.0": _LOOPBACK, "::": "::1"}  # noqa: S104
    host = loopback.get(settings.stats_address, settings.stats_address)
    return {**_static_cluster(_PAUSE, host, settings.stats_port), "type": "STATIC"}


def _static_cluster(name: str, host: str, port: int) -> Json:
    endpoint = {"endpoint": {"address": socket_address(host, port)}}
    return {
        "name": name,
        "connect_timeout": seconds(1),
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _stats_listener(settings: BootstrapSettings) -> Json:
    """Return the listener that shows two pages of the admin interface alone, and says when the pod may leave."""
    routes = [
        *(_get(path, {"route": {"cluster": "admin"}}) for path in ("/stats/prometheus", "/ready")),
        _get(_PAUSE_PATH, {"direct_response": {"status": 200}}),
        # Reached only if the script fails.
        _get(LEAVE_PATH, {"direct_response": {"status": 500}}),
    ]
    manager = {
        "stat_prefix": "stats",
        # Leaving takes as long as the longest request, and nothing is sent meanwhile.
        "stream_idle_timeout": seconds(0),
        "route_config": {
            "name": "stats",
            "virtual_hosts": [{"name": "stats", "domains": ["*"], "routes": routes}],
        },
        "http_filters": [
            _leave_filter(settings),
            _pause_filter(),
            extension("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router"),
        ],
    }
    return {
        "name": "stats",
        "address": socket_address(settings.stats_address, settings.stats_port),
        # Counters must stay readable when the gateway refuses clients.
        "ignore_global_conn_limit": True,
        "filter_chains": [
            {
                "filters": [
                    extension(
                        "envoy.filters.network.http_connection_manager",
                        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                        manager,
                    )
                ]
            }
        ],
    }


def _get(path: str, action: Json) -> Json:
    """Return what is done for GET of a path."""
    method = {"name": ":method", "string_match": {"exact": "GET"}}
    return {"match": {"path": path, "headers": [method]}, **action}


def _leave_filter(settings: BootstrapSettings) -> Json:
    return extension(
        "envoy.filters.http.lua",
        "envoy.extensions.filters.http.lua.v3.Lua",
        {
            "default_source_code": {
                "inline_string": scripts.leave(settings.drain_seconds, settings.patience_seconds)
            }
        },
    )


def _pause_filter() -> Json:
    """Return the filter that delays the answer to one path."""
    return extension(
        "envoy.filters.http.fault",
        "envoy.extensions.filters.http.fault.v3.HTTPFault",
        {
            "headers": [{"name": ":path", "string_match": {"exact": _PAUSE_PATH}}],
            "delay": {"fixed_delay": seconds(_PAUSE_SECONDS), "percentage": {"numerator": 100}},
        },
    )


def _overload_manager(settings: BootstrapSettings) -> Json:
    def action(name: str, share: float) -> Json:
        trigger = {"name": "envoy.resource_monitors.fixed_heap", "threshold": {"value": share}}
        return {"name": name, "triggers": [trigger]}

    return {
        "refresh_interval": seconds(0.25),
        "resource_monitors": [
            extension(
                "envoy.resource_monitors.fixed_heap",
                "envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
                {"max_heap_size_bytes": settings.heap_bytes},
            ),
            extension(
                "envoy.resource_monitors.global_downstream_max_connections",
                "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                {"max_active_downstream_connections": settings.max_connections},
            ),
        ],
        "actions": [
            # Shares as in Envoy's edge best practices
            # (https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/best_practices/edge).
            action("envoy.overload_actions.shrink_heap", 0.95),
            action("envoy.overload_actions.stop_accepting_requests", 0.98),
        ],
    }
