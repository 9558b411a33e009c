"""All objects that run one deployment."""

from collections.abc import Sequence
from typing import Any

from modelyard.api.meta import Refusal
from modelyard.catalog.engines import Image, resolve_image
from modelyard.core.reasons import Code
from modelyard.core.sovereign import explain_source
from modelyard.render.deployment import build_deployment
from modelyard.render.disruption_budget import build_disruption_budget
from modelyard.render.engines import ENGINES
from modelyard.render.leader_worker_set import build_leader_worker_set
from modelyard.render.network_policy import build_network_policy
from modelyard.render.resources import check_placement
from modelyard.render.service import build_service
from modelyard.render.service_account import build_service_account
from modelyard.render.settings import RenderSettings
from modelyard.render.workload import Parent, Workload


def check_workload(workload: Workload, settings: RenderSettings) -> Refusal | None:
    """Return why a workload cannot be built, None if it can."""
    image = _resolve_image(workload, settings)
    if isinstance(image, Refusal):
        return image
    return (
        check_sources(workload)
        or ENGINES[workload.deployment.spec.engine.name].check(workload)
        or check_placement(workload)
    )


def check_sources(parent: Parent) -> Refusal | None:
    """Return why a new pod of a deployment behind a sovereign route could not get its model, None if it could."""
    if not (parent.sovereign and parent.is_remote):
        return None
    return Refusal(Code.SOURCE_OUTSIDE, explain_source(parent.deployment))


def build_policy(parent: Parent, settings: RenderSettings) -> dict[str, Any]:
    """Return the NetworkPolicy alone: it needs no accelerator, and closes also what may not be built any more."""
    return build_network_policy(parent, ENGINES[parent.deployment.spec.engine.name], settings)


def build_children(workloads: Sequence[Workload], settings: RenderSettings) -> tuple[dict[str, Any], ...]:
    """Return every child of a deployment that runs on these variants, in the order in which to apply them.

    The policy and the account come before the pods; variants share them. Raises ValueError for a workload that
    `check_workload` refuses, or without any.
    """
    if not workloads:
        raise ValueError("a deployment has at least one variant")
    first = workloads[0]
    return (
        build_service_account(first),
        build_policy(first, settings),
        build_service(first),
        build_disruption_budget(first),
        *(_build_workload(workload, settings) for workload in workloads),
    )


def _build_workload(workload: Workload, settings: RenderSettings) -> dict[str, Any]:
    image = _resolve_image(workload, settings)
    refusal = check_workload(workload, settings)
    if refusal is not None or isinstance(image, Refusal):
        raise ValueError(f"{workload.deployment.key} cannot be built: {refusal}")
    engine = ENGINES[workload.deployment.spec.engine.name]
    build = build_leader_worker_set if workload.nodes > 1 else build_deployment
    return build(workload, engine, image, settings)


def _resolve_image(workload: Workload, settings: RenderSettings) -> Image | Refusal:
    engine = workload.deployment.spec.engine
    return resolve_image(engine.name, engine.version, workload.kind, settings.images)
