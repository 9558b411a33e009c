"""What `dataPolicy: Sovereign` reaches: a route's name, the deployments behind it, and where their models come from.

No request leaves the cluster through the gateway, and none through a pod that answers it.
"""

from collections.abc import Iterable, Iterator
from itertools import chain

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.llmroute import LLMRoute
from modelyard.core.reasons import Code, Reason
from modelyard.core.snapshot import Snapshot

REMOTE = "hf://"
"""Scheme of sources outside the cluster."""


def sovereign_names(routes: Iterable[LLMRoute]) -> frozenset[tuple[str, str]]:
    """Return namespace and name of every route that no request may leave the cluster through, under both its names.

    Two routes of one namespace may want the same name, and only one gets it. If either is sovereign the name is: a
    mistake in the other must not send its requests outside.
    """
    return frozenset(
        (route.metadata.namespace, name)
        for route in routes
        if route.spec.data_policy == "Sovereign"
        for name in (route.spec.model, route.key)
    )


def sovereign_deployments(routes: Iterable[LLMRoute]) -> frozenset[str]:
    """Return `namespace/name` of every deployment that a sovereign name sends requests to, by whatever rule.

    A weight of 0 counts: it is one edit away from requests, and pods remember what they were sent.
    """
    known = tuple(routes)
    closed = sovereign_names(known)
    return frozenset(
        key
        for route in known
        if (route.metadata.namespace, route.spec.model) in closed
        for key in target_deployments(route)
    )


def make_sovereign(route: LLMRoute) -> LLMRoute:
    """Return the route with the policy of one whose requests stay inside."""
    return route.model_copy(update={"spec": route.spec.model_copy(update={"data_policy": "Sovereign"})})


def target_deployments(route: LLMRoute) -> Iterator[str]:
    """Yield `namespace/name` of the deployments among a route's targets and those of its rules."""
    rules = (rule.targets for rule in route.spec.rules or ())
    for target in chain(route.spec.targets, *rules):
        if target.deployment is not None:
            yield f"{route.metadata.namespace}/{target.deployment}"


def remote_sources(deployment: LLMDeployment) -> tuple[str, ...]:
    """Return the sources of model and adapters that a pod has to download from outside the cluster."""
    model = deployment.spec.model
    sources = (model.source, *(adapter.source for adapter in model.adapters))
    return tuple(source for source in sources if source.startswith(REMOTE))


def explain_source(deployment: LLMDeployment) -> str:
    """Return why no new pod of a deployment behind a sovereign route can get its model, and what helps."""
    return (
        f"a route with dataPolicy Sovereign sends requests to LLMDeployment {deployment.key}, so its pods may not "
        f"reach {', '.join(remote_sources(deployment))}: replicas that run go on, new ones are not started; copy the "
        "files to a PersistentVolumeClaim and set source to pvc://"
    )


def judge_sources(route: LLMRoute, snapshot: Snapshot) -> tuple[bool, Reason]:
    """Return whether all deployments behind a sovereign route get their models from inside the cluster."""
    found = (snapshot.deployments.get(key) for key in sorted(set(target_deployments(route))))
    outside = [explain_source(item) for item in found if item is not None and remote_sources(item)]
    if outside:
        return False, Reason(Code.SOURCE_OUTSIDE, "; ".join(outside))
    return True, Reason(Code.SOURCES_INSIDE, "models of all targets come from inside the cluster")
