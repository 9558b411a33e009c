"""The index of routes says at every moment what a look through all of them says."""

from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.sovereign import sovereign_deployments, target_deployments
from modelyard.runtime.routeindex import RouteChange, RouteIndex
from tests.unit.core.build import make_targets_route

KEYS = ("a/one", "a/two", "a/three", "b/one")
DEPLOYMENTS = ("llama", "qwen", "gemma")
TARGETS = st.lists(
    st.sampled_from(DEPLOYMENTS).map(lambda name: {"deployment": name})
    | st.just({"provider": "p", "model": "m"}),
    min_size=1,
    max_size=2,
)


@st.composite
def forms(draw):
    """A route of a few names, or none."""
    key = draw(st.sampled_from(KEYS))
    if draw(st.integers(0, 3)) == 0:
        return key, None
    ruled = draw(st.none() | TARGETS)
    rules = None if ruled is None else [{"match": {"tenants": ["blue"]}, "targets": ruled}]
    model = draw(st.sampled_from(["chat", "code", *KEYS]))
    policy = draw(st.sampled_from(["Any", "Any", "Sovereign"]))
    route = make_targets_route(key, model, *draw(TARGETS), rules=rules, dataPolicy=policy)
    return key, route


@settings(deadline=None, max_examples=300)
@given(st.lists(forms(), min_size=1, max_size=12))
def test_it_says_what_a_look_through_all_routes_says(steps):
    index, routes = RouteIndex(), {}
    for key, route in steps:
        before = sovereign_deployments(routes.values())
        rivals = {
            other
            for form in (routes.get(key), route)
            if form is not None
            for other, item in routes.items()
            if other != key
            and item.metadata.namespace == form.metadata.namespace
            and {item.spec.model, item.key} & {form.spec.model, form.key}
        }
        same = routes.get(key) == route
        if route is None:
            routes.pop(key, None)
        else:
            routes[key] = route
        change = index.put(key, route)
        after = sovereign_deployments(routes.values())
        assert change == (RouteChange() if same else RouteChange(frozenset(rivals), before ^ after))
        for namespace in "ab":
            for name in DEPLOYMENTS:
                deployment = f"{namespace}/{name}"
                assert index.is_sovereign(deployment) == (deployment in after)
                naming = {other for other, item in routes.items() if deployment in target_deployments(item)}
                assert index.routes_to(deployment) == naming


def test_a_new_status_concerns_nobody_else():
    index = RouteIndex()
    one, two = (make_targets_route(key, "chat", {"deployment": "llama"}) for key in ("a/one", "a/two"))
    index.put("a/one", one)
    assert index.put("a/two", two).siblings == {"a/one"}
    told = two.model_copy(update={"status": two.status.model_copy(update={"spill_percent": 10})})
    assert index.put("a/two", told) == RouteChange()


def test_one_that_was_made_anew_may_lose_its_name():
    index = RouteIndex()
    target = {"deployment": "llama"}
    index.put("a/one", make_targets_route("a/one", "chat", target))
    index.put("a/two", make_targets_route("a/two", "chat", target))
    later = make_targets_route("a/two", "chat", target, created="2027-01-01T00:00:00Z")
    assert index.put("a/two", later).siblings == {"a/one"}
