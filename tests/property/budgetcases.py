"""Budgets, spend and routes of every kind, for the laws of budgets."""

from datetime import UTC, datetime

from hypothesis import strategies as st

from modelyard.api.llmbudget import LLMBudget
from modelyard.core.budget.rules import divide
from modelyard.core.routing import Route, RouteRule, WeightedTarget
from modelyard.core.spend import HOUR, Spend, SpendKey, SpendLine

ZONES = (
    "Etc/UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",
    "America/Havana",  # Clocks change at midnight: there are two.
    "Africa/Cairo",  # Clocks change at midnight: there is none.
    "America/Sao_Paulo",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",  # Clocks change by half an hour.
    "Pacific/Apia",  # Had no 30 December 2011.
    "Pacific/Chatham",
    "Asia/Tehran",
)
KINDS = ("Day", "Week", "Month")

NOW = datetime(2026, 11, 18, 12, 30, tzinfo=UTC).timestamp()
TENANTS, ROUTES = ("search", "mail", ""), ("one/chat@route", "one/own", "two/chat@route", "one/own:lora")
TARGETS = ("one/own", "one/own:lora", "two/own", "provider:acme/large", "provider:zeta/small")

scopes = st.fixed_dictionaries(
    {},
    optional={
        "tenants": st.lists(st.sampled_from(("search", "mail")), min_size=1, max_size=2, unique=True),
        "namespaces": st.lists(st.sampled_from(("one", "two")), min_size=1, max_size=2, unique=True),
        "routes": st.lists(st.sampled_from(("one/chat", "two/chat", "one/own")), min_size=1, unique=True),
        "deployments": st.lists(st.sampled_from(("one/own", "two/own")), min_size=1, unique=True),
        "providers": st.lists(st.sampled_from(("acme", "zeta")), min_size=1, unique=True),
    },
)
softs = st.none() | st.fixed_dictionaries(
    {"at": st.sampled_from(("0.1", "0.5", "1")), "action": st.sampled_from(("PreferCheaper", "Sleep"))}
) | st.fixed_dictionaries(
    {"at": st.sampled_from(("0.1", "0.5")), "action": st.just("LowerMax")},
    optional={"maxShare": st.sampled_from(("0.25", "0.5", "1"))},
)  # fmt: skip


@st.composite
def budgets(draw: st.DrawFn, name: str = "a") -> LLMBudget:
    """A budget; the rules of the API server are passed over on purpose."""
    spec = {
        "amount": draw(st.sampled_from(("1", "10", "100"))),
        "period": draw(st.sampled_from(KINDS)),
        "timeZone": draw(st.sampled_from(ZONES)),
        "scope": draw(scopes),
        "hard": {"action": draw(st.sampled_from(("Refuse", "Refuse", "Warn")))},
    }
    soft = draw(softs)
    if soft is not None:
        spec["soft"] = soft
    metadata = {"name": name, "namespace": "modelyard-system", "generation": 1}
    return LLMBudget.model_validate({"metadata": metadata, "spec": spec})


keys = st.builds(
    lambda tenant, route, target: SpendKey(tenant, route.partition("/")[0], route, target),
    st.sampled_from((*TENANTS, "_other")),
    st.sampled_from((*ROUTES, "")),
    st.sampled_from((*TARGETS, "")),
)
lines = st.builds(
    lambda ago, key, dollars: SpendLine(
        int(NOW - NOW % HOUR) - ago * HOUR, key, "Provider" if "provider" in key.target else "Own", dollars
    ),
    st.integers(0, 40 * 24),
    keys,
    st.floats(0, 60, allow_nan=False),
)
spends = st.lists(lines, max_size=12).map(lambda found: Spend(NOW, tuple(found)))

targets = st.lists(st.sampled_from(TARGETS), min_size=1, max_size=4, unique=True).map(
    lambda keys: tuple(WeightedTarget(key) for key in keys)
)
routes = st.lists(
    st.builds(
        lambda name, own, ruled: Route(name, (name,), own, rules=tuple(RouteRule(part) for part in ruled)),
        st.sampled_from(ROUTES),
        targets,
        st.lists(targets, max_size=2),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda route: route.name,
)
several = st.lists(budgets(), min_size=1, max_size=4).map(
    lambda found: tuple(
        item.model_copy(update={"metadata": item.metadata.model_copy(update={"name": f"b{number}"})})
        for number, item in enumerate(found)
    )
)
prices = st.dictionaries(st.sampled_from(TARGETS), st.floats(0, 10))


Part = tuple[str, str, int]
"""Name of a route, a tenant, and which of the route's rules takes its requests; one more than there are: none."""


def parts(route: Route) -> tuple[tuple[WeightedTarget, ...], ...]:
    """Return the targets of each rule, and of the route itself."""
    return (*(rule.targets for rule in route.rules), route.targets)


def reached(route: Route, tenant: str) -> tuple[frozenset[str], ...]:
    """Return the upstreams that a tenant's requests may reach, as the divided route says."""
    rest, named = divide(route)
    own = dict(named).get(tenant, rest)
    if own.exhausted is not None and not own.targets and not own.rules:
        return (frozenset(),) * len(parts(route))
    return tuple(frozenset(target.upstream for target in left) for left in parts(own))


def outcome(found: tuple[Route, ...]) -> dict[Part, frozenset[str]]:
    return {
        (route.name, tenant, number): left
        for route in found
        for tenant in TENANTS
        for number, left in enumerate(reached(route, tenant))
    }
