"""Encodes the routes of models, and keeps whatever stays the same from one table to the next."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from modelyard.core.routing import RoutingTable
from modelyard.gateway import protos
from modelyard.render.envoy.parts import Part, model_parts
from modelyard.render.envoy.routes import list_routes, listed_models, route_configuration
from modelyard.render.envoy.rules import RoutePlan, plan_route
from modelyard.render.envoy.settings import GatewaySettings
from modelyard.render.envoy.tenants import TenantGroups, known_keys, tenant_groups
from modelyard.render.envoy.typed import Json

_ROUTE = protos.TYPE_URL_PREFIX + "envoy.config.route.v3.Route"
_LIST = protos.TYPE_URL_PREFIX + "envoy.config.route.v3.RouteList"
_ACTION = "xds.type.matcher.v3.Matcher.OnMatch"
_CONFIGURATION = "envoy.config.route.v3.RouteConfiguration"


@dataclass(frozen=True, slots=True)
class _Model:
    """The routes of one model name."""

    plan: RoutePlan
    """What they follow from."""
    parts: Mapping[str, tuple[Part, ...]]
    actions: Mapping[str, bytes]
    """Encoded, by their keys."""


@dataclass(slots=True)
class RouteEncoder:
    """Encodes the route configuration of one table after the other."""

    settings: GatewaySettings
    _models: dict[str, _Model] = field(default_factory=dict)
    """By model name."""
    _parts: dict[Part, tuple[bytes, ...]] = field(default_factory=dict)
    """Encoded routes."""
    _uses: Counter[Part] = field(default_factory=Counter)
    """How often a part stands in `_models`: one that stands nowhere is dropped."""
    _lists: tuple[object, Mapping[str, bytes]] | None = None
    _frame: tuple[object, bytes] | None = None
    """The configuration without models."""
    _last: tuple[object, bytes] | None = None

    def encode(self, table: RoutingTable, tenant_keys: Mapping[str, str]) -> bytes:
        """Return the configuration. `tenant_keys`: names of tenants by the SHA-256 digests of their API keys."""
        groups = tenant_groups(table)
        frame = self._encode_frame(table, groups, tenant_keys)
        lists = self._encode_lists(table, groups)
        models = {
            model: self._encode_model(model, plan_route(route, table, groups.users.get(route.name)))
            for model, route in listed_models(table)
        }
        self._take(models)
        key = (frame, lists, tuple(models.items()))
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        message: protos.DynamicMessage = protos.message_class(_CONFIGURATION).FromString(frame)
        actions = message.virtual_hosts[0].matcher.matcher_tree.exact_match_map.map
        for name, action in chain(lists.items(), *(item.actions.items() for item in models.values())):
            actions[name].ParseFromString(action)
        encoded: bytes = message.SerializeToString(deterministic=True)
        self._last = (key, encoded)
        return encoded

    def _encode_frame(
        self, table: RoutingTable, groups: TenantGroups, tenant_keys: Mapping[str, str]
    ) -> bytes:
        known = known_keys(groups, tenant_keys, anonymous=table.anonymous)
        pickers = any(upstream.picker is not None for upstream in table.upstreams.values())
        affinity = any(upstream.affinity for upstream in table.upstreams.values())
        key = (known, frozenset(table.limits), pickers, affinity)
        if self._frame is None or self._frame[0] != key:
            configuration = route_configuration(
                self.settings, known, table.limits, pickers=pickers, affinity=affinity
            )
            message = protos.parse(_CONFIGURATION, configuration)
            self._frame = (key, message.SerializeToString(deterministic=True))
        return self._frame[1]

    def _encode_lists(self, table: RoutingTable, groups: TenantGroups) -> Mapping[str, bytes]:
        listed = tuple(
            (model, route.name, route.created, route.owner) for model, route in listed_models(table)
        )
        key = (listed, groups.lists)
        if self._lists is None or self._lists[0] != key:
            routes = list_routes(table, groups)
            self._lists = (key, {name: _action(map(_encode, found)) for name, found in routes.items()})
        return self._lists[1]

    def _encode_model(self, model: str, plan: RoutePlan) -> _Model:
        known = self._models.get(model)
        if known is not None and known.plan == plan:
            return known
        parts = model_parts(model, plan)
        actions = {
            key: _action(chain.from_iterable(map(self._encode_part, found))) for key, found in parts.items()
        }
        return _Model(plan, parts, actions)

    def _encode_part(self, part: Part) -> tuple[bytes, ...]:
        encoded = self._parts.get(part)
        if encoded is None:
            encoded = self._parts[part] = tuple(map(_encode, part.render(self.settings)))
        return encoded

    def _take(self, models: dict[str, _Model]) -> None:
        """Take over the models of a table, and drop the parts that none of them has."""
        before, self._models = self._models, models
        for model in models.keys() | before.keys():
            old, new = before.get(model), models.get(model)
            if old is new:
                continue
            self._uses.update(_parts_of(new))
            self._uses.subtract(_parts_of(old))
        for part in [part for part, uses in self._uses.items() if uses <= 0]:
            del self._uses[part]
            self._parts.pop(part, None)


def _parts_of(model: _Model | None) -> Iterator[Part]:
    return iter(()) if model is None else chain.from_iterable(model.parts.values())


def _encode(route: Json) -> bytes:
    return protos.encode(_ROUTE, route)


def _action(routes: Iterable[bytes]) -> bytes:
    """Return the action of a matcher that takes the first of these routes that matches."""
    found = tuple(routes)
    action: protos.DynamicMessage = protos.message_class(_ACTION)()
    if len(found) == 1:
        action.action.name, kind, value = "route", _ROUTE, found[0]
    else:
        several: protos.DynamicMessage = protos.message_class(_LIST.removeprefix(protos.TYPE_URL_PREFIX))()
        for encoded in found:
            several.routes.add().ParseFromString(encoded)
        value = several.SerializeToString(deterministic=True)
        action.action.name, kind = "routes", _LIST
    action.action.typed_config.type_url, action.action.typed_config.value = kind, value
    result: bytes = action.SerializeToString(deterministic=True)
    return result
