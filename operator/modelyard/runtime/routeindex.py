"""What LLMRoutes name, kept from event to event.

A look through all routes for each deployment, or for each other route, takes as many steps as there are pairs.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from modelyard.api.llmroute import LLMRoute
from modelyard.core.sovereign import target_deployments

K = TypeVar("K")

Name = tuple[str, str]
"""Namespace, and a name that requests ask for."""


@dataclass(frozen=True, slots=True)
class RouteChange:
    """What follows for others from a new form of a route."""

    siblings: frozenset[str] = frozenset()
    """Routes of the namespace, by key, that share a name with it: who has the name may change, or where it may go."""
    closed: frozenset[str] = frozenset()
    """Deployments, by key, that a sovereign name sends requests to now and did not before, or the other way round."""


class RouteIndex:
    """Routes by their names and targets."""

    def __init__(self) -> None:
        self._routes: dict[str, LLMRoute] = {}
        self._named: dict[Name, set[str]] = {}
        """Routes that want a name, or are called so."""
        self._targeting: dict[str, set[str]] = {}
        """Routes that name a deployment, in their rules too."""
        self._sovereign: Counter[Name] = Counter()
        """How many sovereign routes want a name, or are called so."""

    def routes_to(self, deployment: str) -> frozenset[str]:
        """Return the routes that name a deployment, in their rules too."""
        return frozenset(self._targeting.get(deployment, ()))

    def is_sovereign(self, deployment: str) -> bool:
        """Say whether a sovereign name sends requests to a deployment (`core.sovereign.sovereign_deployments`)."""
        return any(
            (route.metadata.namespace, route.spec.model) in self._sovereign
            for key in self._targeting.get(deployment, ())
            for route in (self._routes[key],)
        )

    def put(self, key: str, route: LLMRoute | None) -> RouteChange:
        """Take in what holds of a route now; None: nothing does, as of one that is gone."""
        before = self._routes.get(key)
        if _essence(before) == _essence(route):
            return RouteChange()
        forms = [item for item in (before, route) if item is not None]
        siblings = {
            other for item in forms for name in _names(item) for other in self._named.get(name, ())
        } - {key}
        concerned = {
            target
            for item in (*forms, *(self._routes[other] for other in siblings))
            for target in target_deployments(item)
        }
        closed = self._closed_of(concerned)
        if before is not None:
            self._take_out(key, before)
        if route is not None:
            self._take_in(key, route)
        return RouteChange(frozenset(siblings), closed ^ self._closed_of(concerned))

    def _closed_of(self, deployments: Iterable[str]) -> frozenset[str]:
        return frozenset(item for item in deployments if self.is_sovereign(item))

    def _take_in(self, key: str, route: LLMRoute) -> None:
        self._routes[key] = route
        for name in _names(route):
            self._named.setdefault(name, set()).add(key)
            if route.spec.data_policy == "Sovereign":
                self._sovereign[name] += 1
        for target in target_deployments(route):
            self._targeting.setdefault(target, set()).add(key)

    def _take_out(self, key: str, route: LLMRoute) -> None:
        del self._routes[key]
        for name in _names(route):
            _discard(self._named, name, key)
            if route.spec.data_policy == "Sovereign":
                self._sovereign[name] -= 1
                if not self._sovereign[name]:
                    del self._sovereign[name]
        for target in target_deployments(route):
            _discard(self._targeting, target, key)


def _names(route: LLMRoute) -> frozenset[Name]:
    return frozenset((route.metadata.namespace, name) for name in (route.spec.model, route.key))


def _essence(route: LLMRoute | None) -> object:
    """Return what others depend on: everything but the status, which is our own."""
    if route is None:
        return None
    return route.spec, route.metadata.uid, route.metadata.creation_timestamp


def _discard(sets: dict[K, set[str]], name: K, key: str) -> None:
    """Take a key out of a set of sets, that keeps no empty ones."""
    found = sets.get(name)
    if found is not None:
        found.discard(key)
        if not found:
            del sets[name]
