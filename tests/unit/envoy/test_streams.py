"""The delta protocol, request by request, without a network."""

import hashlib

import pytest

from modelyard.core.routing import Endpoint, ExternalUpstream, Route, RoutingTable, Upstream, WeightedTarget
from modelyard.gateway import protos
from modelyard.gateway.resources import build_resources
from modelyard.gateway.streams import Stream
from modelyard.render.envoy.settings import GatewaySettings

POD, OTHER = Endpoint("10.0.0.1", 8000), Endpoint("10.0.0.2", 8000)
ROUTE = Route("t/a", ("a",), (WeightedTarget("t/a"),))


def offer(generation=0, *pods):
    upstream = Upstream("t/a", generation, "a", pods)
    return build_resources(RoutingTable((ROUTE,), {"t/a": upstream}, anonymous=True), GatewaySettings())


class Envoy:
    """The other end of a stream: it accepts everything unless told otherwise, and asks as Envoy does."""

    def __init__(self, resources):
        self.demand = []
        self.resources = resources
        self.stream = Stream(demand=lambda *signal: self.demand.append(signal), node_id="envoy-1")
        self.has = {}

    def ask(self, type_url, subscribe=(), versions=None, **fields):
        request = protos.message_class(protos.DELTA_REQUEST)(
            type_url=type_url,
            resource_names_subscribe=subscribe,
            initial_resource_versions=versions or {},
            **fields,
        )
        self.stream.receive(request, self.resources)

    def push(self):
        """Take the pending responses without an answer."""
        return list(self.stream.push(self.resources))

    def accept(self, responses):
        for response in responses:
            for resource in response.resources:
                self.has[resource.name] = resource.version
            for name in response.removed_resources:
                del self.has[name]
            self.ask(response.type_url, response_nonce=response.nonce)

    def settle(self):
        """Take and accept until nothing more comes; returns what came, in order."""
        seen = []
        while responses := self.push():
            self.accept(responses)
            seen += [
                (
                    response.type_url.rpartition(".")[2],
                    sorted(resource.name for resource in response.resources),
                    sorted(response.removed_resources),
                )
                for response in responses
            ]
        return seen

    def start(self):
        self.ask(protos.CLUSTER, ["*"])
        self.ask(protos.LISTENER, ["*"])
        self.settle()
        self.ask(protos.ROUTES, ["models"])
        self.ask(protos.ENDPOINTS, list(self.resources.by_type[protos.ENDPOINTS]))
        self.settle()
        return self

    def change(self, resources):
        self.resources = resources
        return self


def test_a_start_brings_everything_in_order():
    envoy = Envoy(offer(0, POD))
    envoy.ask(protos.LISTENER, ["*"])
    envoy.ask(protos.ROUTES, ["models"])
    envoy.ask(protos.ENDPOINTS, ["t/a~z0"])
    envoy.ask(protos.CLUSTER, ["*"])
    kinds = [kind for kind, _, _ in envoy.settle()]
    assert kinds == ["Cluster", "ClusterLoadAssignment", "Listener", "RouteConfiguration"]
    assert envoy.settle() == []


def test_the_older_form_of_a_wildcard():
    envoy = Envoy(offer(0, POD))
    envoy.ask(protos.CLUSTER)
    assert envoy.settle() == [("Cluster", ["t/a~z0"], [])]


def test_a_start_without_clusters_gets_an_empty_answer_once():
    envoy = Envoy(offer(0))
    envoy.ask(protos.CLUSTER, ["*"])
    assert envoy.settle() == [("Cluster", [], [])]
    assert envoy.settle() == []


def test_only_the_difference_is_sent():
    envoy = Envoy(offer(0, POD)).start()
    assert envoy.change(offer(0, POD, OTHER)).settle() == [("ClusterLoadAssignment", ["t/a~z0"], [])]


def test_sleep_changes_the_routes_first_and_removes_the_cluster_after_they_are_accepted():
    envoy = Envoy(offer(0, POD)).start().change(offer(1))
    routes = envoy.push()
    assert [response.type_url for response in routes] == [protos.ROUTES]
    assert envoy.push() == []
    envoy.accept(routes)
    assert envoy.settle() == [("Cluster", [], ["t/a~z0"])]


def test_rejected_routes_keep_the_cluster():
    envoy = Envoy(offer(0, POD)).start().change(offer(1))
    (routes,) = envoy.push()
    envoy.ask(
        protos.ROUTES, response_nonce=routes.nonce, error_detail={"code": 13, "message": "no such thing"}
    )
    assert envoy.settle() == []
    assert envoy.stream.rejections == 1
    assert "no such thing" in envoy.stream.last_rejection
    # The next routes are tried again.
    assert [kind for kind, _, _ in envoy.change(offer(2)).settle()] == ["RouteConfiguration", "Cluster"]


@pytest.mark.parametrize(
    ("kind", "shown"), [(protos.SECRET, False), (protos.ROUTES, True), (protos.LISTENER, True)]
)
def test_what_envoy_says_of_a_secret_is_not_repeated(kind, shown, caplog):
    """It may quote the key that it could not read."""
    envoy = Envoy(offer(0, POD)).start()
    envoy.ask(kind, response_nonce="77", error_detail={"code": 3, "message": "bad key sk-12345"})
    assert envoy.stream.rejections == 1
    assert kind in envoy.stream.last_rejection
    assert ("sk-12345" in envoy.stream.last_rejection) is shown
    assert ("sk-12345" in caplog.text) is shown


def test_a_changed_cluster_gets_its_endpoints_again():
    envoy = Envoy(offer(0, POD)).start()
    settings = GatewaySettings(connect_timeout=9)
    upstream = Upstream("t/a", 0, "a", (POD,))
    changed = build_resources(RoutingTable((ROUTE,), {"t/a": upstream}, anonymous=True), settings)
    assert envoy.change(changed).settle() == [
        ("Cluster", ["t/a~z0"], []),
        ("ClusterLoadAssignment", ["t/a~z0"], []),
    ]


def test_a_request_for_a_sleeping_model_is_demand_and_gets_no_answer():
    envoy = Envoy(offer(1)).start()
    envoy.ask(protos.CLUSTER, ["t/a~z1"])
    assert envoy.demand == [("t/a", 1, "envoy-1")]
    assert envoy.settle() == []
    assert envoy.change(offer(1, POD)).settle() == [("Cluster", ["t/a~z1"], [])]


def test_a_request_for_a_serving_model_is_answered_at_once():
    envoy = Envoy(offer(1, POD)).start()
    envoy.ask(protos.CLUSTER, ["t/a~z1"])
    assert envoy.demand == []
    assert envoy.settle()[0] == ("Cluster", ["t/a~z1"], [])


def test_foreign_names_are_ignored():
    envoy = Envoy(offer(1)).start()
    envoy.ask(protos.CLUSTER, ["__none__", "t/a~zx"])
    assert envoy.demand == []
    assert envoy.settle() == []


@pytest.mark.parametrize("listed", [["t/a~z4"], ["t/a~z2", "t/a~z3", "t/a~z4"]])
def test_after_a_reconnect_the_current_generation_is_demand(listed):
    envoy = Envoy(offer(4))
    envoy.ask(protos.CLUSTER, ["*", *listed])
    assert envoy.demand == [("t/a", 4, "envoy-1")]


def test_after_a_reconnect_older_generations_are_not():
    envoy = Envoy(offer(4))
    envoy.ask(protos.CLUSTER, ["*", "t/a~z2", "t/a~z3"])
    assert envoy.demand == []


def test_after_a_reconnect_a_generation_that_the_operator_forgot_is_demand():
    envoy = Envoy(offer(0))
    envoy.ask(protos.CLUSTER, ["*", "t/a~z3"])
    assert envoy.demand == [("t/a", 3, "envoy-1")]
    assert envoy.change(offer(4, POD)).push()[0].resources[0].name in {"t/a~z3", "t/a~z4"}


def test_after_a_reconnect_nothing_known_is_sent_again():
    first = Envoy(offer(0, POD)).start()
    second = Envoy(offer(0, POD))
    for type_url, names in (
        (protos.CLUSTER, ["*"]),
        (protos.ENDPOINTS, ["t/a~z0"]),
        (protos.LISTENER, ["*"]),
        (protos.ROUTES, ["models"]),
    ):
        known = first.stream.subscriptions[type_url].sent
        second.ask(type_url, names, versions=dict(known))
    assert second.settle() == []


def test_after_a_reconnect_a_cluster_stays_until_the_new_routes_are_there():
    first = Envoy(offer(0, POD)).start()
    second = Envoy(offer(1))
    sent = {type_url: dict(sub.sent) for type_url, sub in first.stream.subscriptions.items()}
    second.has = {"t/a~z0": ""}
    second.ask(protos.CLUSTER, ["*"], versions=sent[protos.CLUSTER])
    assert second.push() == []
    second.ask(protos.LISTENER, ["*"], versions=sent[protos.LISTENER])
    second.ask(protos.ROUTES, ["models"], versions=sent[protos.ROUTES])
    assert second.settle() == [("RouteConfiguration", ["models"], []), ("Cluster", [], ["t/a~z0"])]


def test_a_late_request_for_an_old_generation_is_demand_and_is_released():
    envoy = Envoy(offer(0, POD)).start()
    envoy.change(offer(1)).settle()
    envoy.ask(protos.CLUSTER, ["t/a~z0"])
    assert envoy.demand == [("t/a", 0, "envoy-1")]
    kind, names, _ = envoy.change(offer(1, POD)).settle()[0]
    assert (kind, names) == ("Cluster", ["t/a~z0", "t/a~z1"])
    # Asleep again: both go, and the old one does not come back.
    assert envoy.change(offer(2)).settle()[-1] == ("Cluster", [], ["t/a~z0", "t/a~z1"])
    assert envoy.change(offer(2, POD)).settle()[0] == ("Cluster", ["t/a~z2"], [])


def test_an_old_generation_that_was_asked_for_before_is_released_without_a_signal():
    envoy = Envoy(offer(0)).start()
    envoy.ask(protos.CLUSTER, ["t/a~z0"])
    envoy.change(offer(0, POD)).settle()
    envoy.change(offer(1)).settle()
    assert envoy.change(offer(1, POD)).settle()[0] == ("Cluster", ["t/a~z0", "t/a~z1"], [])


def test_unsubscribed_endpoints_are_not_sent_any_more():
    envoy = Envoy(offer(0, POD)).start()
    envoy.ask(protos.ENDPOINTS, resource_names_unsubscribe=["t/a~z0"])
    assert envoy.change(offer(0, OTHER)).settle() == []


ACME = ExternalUpstream("acme", "large", "api.acme.example")
SECRET_NAME = "provider-key:acme"


def offer_provider(key="sk-1", *, routed=True):
    table = RoutingTable(
        (Route("t/a", ("a",), (WeightedTarget(ACME.cluster),)),) if routed else (),
        {},
        {ACME.cluster: ACME} if routed else {},
        anonymous=True,
    )
    return build_resources(table, GatewaySettings(), {"acme": key, "unused": "sk-2"})


@pytest.mark.parametrize("confidential", [True, False])
def test_keys_are_sent_where_nobody_can_listen_and_nowhere_else(confidential):
    envoy = Envoy(offer_provider())
    envoy.stream.confidential = confidential
    envoy.ask(protos.CLUSTER, ["*"])
    assert [name for _, name, _ in envoy.settle()] == [[ACME.cluster]]
    envoy.ask(protos.SECRET, [SECRET_NAME, "provider-key:unused"])
    sent = envoy.push()
    assert [[item.name for item in response.resources] for response in sent] == (
        [[SECRET_NAME]] if confidential else []
    )


def test_a_new_key_is_sent_again_and_its_version_tells_nothing():
    first, second = offer_provider("sk-1"), offer_provider("sk-2")
    assert first.version != second.version
    assert offer_provider("sk-1").version == first.version
    (resource,) = first.by_type[protos.SECRET].values()
    assert resource.version != hashlib.sha256(resource.encoded).hexdigest()[:16]
    assert "sk-1" not in repr(first)
    envoy = Envoy(first)
    envoy.stream.confidential = True
    envoy.ask(protos.SECRET, [SECRET_NAME])
    envoy.settle()
    assert envoy.settle() == []
    envoy.resources = second
    assert envoy.settle() == [("Secret", [SECRET_NAME], [])]


def test_keys_of_providers_that_no_route_uses_are_not_offered():
    assert offer_provider(routed=False).by_type[protos.SECRET] == {}


def test_names_that_come_on_a_stream_of_their_own_are_demand_too():
    envoy = Envoy(offer(1)).start()
    envoy.stream.ask(["t/a~z1"], envoy.resources, reconnected=False)
    assert envoy.demand == [("t/a", 1, "envoy-1")]
    assert envoy.settle() == []
    assert envoy.change(offer(1, POD)).settle()[0] == ("Cluster", ["t/a~z1"], [])
    envoy.stream.ask(["t/a~z1"], envoy.resources, reconnected=False)
    assert len(envoy.demand) == 1, "it serves"


def test_what_such_a_stream_lists_after_a_reconnect_is_demand_as_far_as_it_is_current():
    envoy = Envoy(offer(4)).start()
    envoy.stream.ask(["t/a~z2", "t/a~z3", "t/a~z4"], envoy.resources, reconnected=True)
    assert envoy.demand == [("t/a", 4, "envoy-1")]
    sent = envoy.change(offer(4, POD)).settle()
    # The one before may be waited for unnoticed.
    assert sent[0] == ("Cluster", ["t/a~z3", "t/a~z4"], [])
