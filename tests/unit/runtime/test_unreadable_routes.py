"""An LLMRoute that cannot be read: what ran goes on, its name goes to nobody else, and its status says why."""

import asyncio
import logging
from typing import Any

import pytest

from modelyard.core.names import build_routing_table, resolve_names
from modelyard.core.routing import Route
from modelyard.core.sovereign import sovereign_names
from modelyard.kube.informers import Indices
from modelyard.kube.projections import Seen, project_route
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.reconcile import Reconciler
from modelyard.runtime.settings import OperatorSettings
from tests.unit.core.build import make_deployment, make_provider

KEY = "team/chat"
OWN, ACME = {"deployment": "llama"}, {"provider": "acme", "model": "large"}
CREATED = "2026-01-02T00:00:00Z"


def body(version, *targets, name="chat", **spec):
    metadata = {
        "name": name,
        "namespace": "team",
        "uid": name,
        "resourceVersion": str(version),
        "generation": version,
        "creationTimestamp": CREATED,
    }
    return {"metadata": metadata, "spec": {"model": "chat", "targets": list(targets), **spec}}


BROKEN = {"policy": "FromTheFuture"}
"""A value that a later version of the schema may let in."""


class Stage:
    """A fleet with one deployment and one route, as the watch shows it, and the API server that keeps its status."""

    def __init__(self, shown, *siblings, name="llama"):
        model = make_deployment("team/llama", status={"observedGeneration": 3}, model={"name": name})
        self.statuses: list[Any] = []
        self.routes = {
            f"team/{sibling['metadata']['name']}": [project_route(sibling)] for sibling in siblings
        }
        self.fleet = Fleet(
            indices=Indices(
                deployments={"team/llama": [Seen(uid="1", version="1", object=model)]}, routes=self.routes
            ),
            providers={"acme": make_provider()},
        )
        self.reconciler = Reconciler(
            self, None, self.fleet, self, lambda _: None, None, None, None, None, OperatorSettings()
        )
        self.show(shown)

    def show(self, shown):
        """Have the watch show another form; the status stays."""
        if self.statuses:
            shown = {**shown, "status": self.statuses[-1]}
        self.body = shown
        self.routes[KEY] = [project_route(shown)]
        self.fleet.notice_route(KEY)

    async def apply(self, resource, manifest, subresource=""):
        """Answer as the API server does."""
        assert (resource.kind, subresource) == ("LLMRoute", "status")
        self.statuses.append(manifest["status"])
        version = str(int(self.body["metadata"]["resourceVersion"]) + 1)
        self.body = {
            **self.body,
            "metadata": {**self.body["metadata"], "resourceVersion": version},
            "status": manifest["status"],
        }
        return self.body

    def request(self):
        """Publish only where it is waited for."""

    async def published(self):
        """Build the table, as the publisher does."""
        names = self.fleet.snapshot_names()
        self.fleet.owners, self.fleet.names = resolve_names(names), names
        self.fleet.closed_names = sovereign_names(names.routes.values())
        self.fleet.table = build_routing_table(names, self.fleet.owners, {}, self.fleet.table, anonymous=True)

    def reconcile(self):
        """Return the conditions that stand afterwards."""
        asyncio.run(self.reconciler.reconcile_route(KEY))
        self.routes[KEY] = [project_route(self.body)]
        conditions = self.body.get("status", {}).get("conditions", ())
        return {item["type"]: (item["status"], item["reason"]) for item in conditions}

    def serving(self) -> Route:
        """Return who answers for the name."""
        (found,) = (route for route in self.fleet.table.routes if "chat" in route.models)
        return found


def test_what_ran_goes_on_and_is_told_and_logged_once(caplog):
    stage = Stage(body(1, OWN, ACME))
    assert stage.reconcile()["Ready"] == ("True", "Routed")
    before = stage.serving()
    stage.show(body(5, OWN, **BROKEN))
    with caplog.at_level(logging.ERROR):
        found = [stage.reconcile() for _ in range(3)]
    assert [(item["Ready"], item["Stalled"]) for item in found] == [
        (("True", "Routed"), ("True", "Invalid"))
    ] * 3
    assert stage.serving() == before
    assert len(stage.statuses) == 2
    assert caplog.text.count("LLMRoute team/chat cannot be read: spec.policy") == 1
    # It is mended.
    stage.show(body(9, OWN))
    assert stage.reconcile() == {"Ready": ("True", "Routed")}
    assert [target.upstream for target in stage.serving().targets] == ["team/llama"]


def test_one_that_says_it_is_sovereign_sends_nothing_outside_any_more():
    stage = Stage(body(1, OWN, ACME))
    stage.reconcile()
    stage.show(body(5, OWN, dataPolicy="Sovereign", **BROKEN))
    assert stage.reconcile()["Stalled"] == ("True", "Invalid")
    assert [target.upstream for target in stage.serving().targets] == ["team/llama"]
    assert stage.serving().sovereign
    assert stage.fleet.is_sovereign("team/llama")


@pytest.mark.parametrize("policy", ["Sovereign", "SovereignAndSealed"])
def test_after_a_restart_the_name_of_one_that_may_be_sovereign_is_refused_and_given_to_nobody(policy):
    rule = {"match": {}, "targets": [{"deployment": "ruled"}]}
    stage = Stage(body(5, OWN, ACME, dataPolicy=policy, rules=[rule], **BROKEN), name="chat")
    assert stage.reconcile() == {
        "Ready": ("False", "Invalid"),
        "SourcesInside": ("False", "SourceOutside"),
        "Stalled": ("True", "Invalid"),
    }
    route = stage.serving()
    assert (route.name, route.targets) == ("team/chat@route", ())
    assert "LLMRoute team/chat cannot be read" in route.refusal
    assert stage.fleet.is_sovereign("team/llama")
    assert stage.fleet.is_sovereign("team/ruled")
    assert stage.fleet.table.externals == {}
    stage.reconcile()
    assert len(stage.statuses) == 1


def test_a_sibling_that_was_first_keeps_the_name_and_keeps_it_inside():
    older = body(1, OWN, ACME, name="aaa")
    stage = Stage(body(5, OWN, dataPolicy="Sovereign", **BROKEN), older)
    stage.reconcile()
    assert stage.serving().name == "team/aaa@route"
    assert [target.upstream for target in stage.serving().targets] == ["team/llama"]


def test_an_open_one_that_was_never_read_holds_nothing_and_says_why():
    stage = Stage(body(5, OWN, **BROKEN), name="chat")
    assert stage.reconcile() == {"Ready": ("False", "Invalid"), "Stalled": ("True", "Invalid")}
    assert stage.serving().name == "team/llama"


@pytest.mark.parametrize(
    "spec", [None, [], {"dataPolicy": "Sovereign"}, {"dataPolicy": 3, "targets": 7, "rules": [1]}]
)
def test_nonsense_is_survived(spec):
    seen = project_route({**body(1), "spec": spec, "status": {"conditions": [None]}})
    assert (seen.object, seen.conditions, seen.fallback) == (None, (), None)
    assert seen.error


def test_more_deployments_than_a_list_may_have_are_closed_all():
    targets = [{"deployment": f"m{number}"} for number in range(40)]
    seen = project_route(body(1, *targets, {"deployment": "Not A Name"}, dataPolicy="Sovereign"))
    assert seen.fallback is not None
    assert len(seen.fallback.spec.targets) == 40
