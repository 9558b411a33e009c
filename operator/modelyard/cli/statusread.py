"""The installation as it stands in a cluster. It is only read; what may not be read is said."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.api.llmbudget import LLMBudget
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.llmprovider import LLMProvider
from modelyard.api.llmroute import LLMRoute
from modelyard.api.llmtenant import LLMTenant
from modelyard.api.meta import ApiModel
from modelyard.core.inventory import Inventory, build_inventory
from modelyard.core.ledger.archive import OPEN_NAME
from modelyard.core.ledger.codec import LedgerError, decode_ledger
from modelyard.core.overview.build import Installation
from modelyard.core.overview.model import OperatorRow
from modelyard.kube.client import ApiError, KubeClient
from modelyard.kube.projections import project_node, project_object, project_usage
from modelyard.kube.resources import (
    ACCELERATOR_CLASSES,
    CONFIG_MAPS,
    LLM_BUDGETS,
    LLM_DEPLOYMENTS,
    LLM_PROVIDERS,
    LLM_ROUTES,
    LLM_TENANTS,
    NODES,
    PODS,
    Resource,
)
from modelyard.render.ledger import read_ledger

M = TypeVar("M", bound=ApiModel)

FORBIDDEN, MISSING = 403, 404

ACTIVE_LABEL = "modelyard.dev/active"
"""On the operator's pod that holds the Lease, where there are several."""

INVENTORY_ROUNDS = 6
"""Readings after which nodes and pods are read again: there are more of them than of anything else, and a node comes
or goes in minutes."""

_OPERATORS = {"labelSelector": "app.kubernetes.io/name=modelyard,app.kubernetes.io/component=operator"}
_BOUND = {"fieldSelector": "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"}


@dataclass(frozen=True, slots=True)
class StatusScope:
    """What is looked at."""

    namespace: str = ""
    """Of deployments and routes; empty: all."""
    system_namespace: str = ""
    """Of the operator and the gateway: budgets, tenants and providers are there."""


class StatusReader:
    """Reads an installation, again and again."""

    def __init__(self, client: KubeClient, scope: StatusScope) -> None:
        self._client = client
        self._scope = scope
        self._notes: list[str] = []
        self._refused = 0
        self._asked = 0
        self._rounds = 0
        self._inventory: tuple[Inventory | None, tuple[str, ...]] = (None, ())

    async def read(self) -> Installation:
        """Return what there is.

        Raises ApiError where the API server cannot be reached, or lets nothing of it be read.
        """
        self._notes, self._refused, self._asked = [], 0, 0
        within, system = self._scope.namespace, self._scope.system_namespace
        deployments, routes, classes = await asyncio.gather(
            self._objects(LLMDeployment, LLM_DEPLOYMENTS, within),
            self._objects(LLMRoute, LLM_ROUTES, within),
            self._objects(AcceleratorClass, ACCELERATOR_CLASSES, ""),
        )
        budgets, tenants, providers, operators, ledger = await asyncio.gather(
            self._objects(LLMBudget, LLM_BUDGETS, system),
            self._objects(LLMTenant, LLM_TENANTS, system),
            self._objects(LLMProvider, LLM_PROVIDERS, system),
            self._operators(),
            self._ledger(),
        )
        if self._refused == self._asked:
            raise ApiError(FORBIDDEN, "Forbidden", "; ".join(self._notes))
        if self._rounds % INVENTORY_ROUNDS == 0:
            counted, self._notes = self._notes, []
            inventory = await self._read_inventory()
            self._inventory = (inventory, tuple(self._notes))
            self._notes = counted
        self._rounds += 1
        inventory, more = self._inventory
        return Installation(
            deployments=[item for item in deployments if item.metadata.deletion_timestamp is None],
            routes=routes,
            budgets=budgets,
            tenants=tenants,
            providers=providers,
            accelerators=classes,
            inventory=inventory,
            operators=operators,
            ledger_time=ledger,
            notes=(*self._notes, *more),
        )

    async def _objects(self, model: type[M], resource: Resource, namespace: str) -> list[M]:
        """Return the objects of one of our kinds."""
        self._asked += 1
        bodies = await self._list(resource, {}, namespace, f"there are no {resource.kind}s here")
        if bodies is None:
            self._refused += 1
            return []
        found = []
        for body in bodies:
            seen = project_object(model, body)
            if seen.object is None:
                metadata = body["metadata"]
                name = "/".join(filter(None, (metadata.get("namespace", ""), metadata["name"])))
                self._notes.append(f"{resource.kind} {name} cannot be read and is left out: {seen.error}")
            else:
                found.append(seen.object)
        return found

    async def _operators(self) -> tuple[OperatorRow, ...] | None:
        bodies = await self._list(
            PODS, _OPERATORS, self._scope.system_namespace, "nothing is known of the operator"
        )
        return None if bodies is None else describe_operators(bodies)

    async def _ledger(self) -> float | None:
        """Return the Unix time up to which spending is written down."""
        namespace = self._scope.system_namespace
        try:
            body = await self._client.get(CONFIG_MAPS, namespace, OPEN_NAME)
            return None if body is None else decode_ledger(read_ledger(body)).time or None
        except ApiError as error:
            if error.status != FORBIDDEN:
                raise
            self._notes.append(
                f"configmaps may not be read in namespace {namespace}: nothing is known of the ledger"
            )
        except (LedgerError, ValueError) as error:
            self._notes.append(f"the ledger in namespace {namespace} cannot be read: {error}")
        return None

    async def _read_inventory(self) -> Inventory | None:
        nodes = await self._list(NODES, {}, "", "free accelerators are not known")
        if nodes is None:
            return None
        pods = await self._list(PODS, _BOUND, "", "free accelerators are an upper bound")
        usages = [usage for body in pods or () if (usage := project_usage(body)) is not None]
        found = (project_node(body).node for body in nodes)
        return build_inventory(
            (node for node in found if node.accelerators), usages, complete=pods is not None
        )

    async def _list(
        self, resource: Resource, query: Mapping[str, str], namespace: str, consequence: str
    ) -> list[dict[str, Any]] | None:
        """Return the objects of a kind; None, with a note, where they may not be read or there is no such kind."""
        where = f" in namespace {namespace}" if namespace else ""
        try:
            return [body async for body in self._client.list_pages(resource, query, namespace=namespace)]
        except ApiError as error:
            if error.status == FORBIDDEN:
                hint = (
                    "" if namespace or not resource.namespaced else " (in all namespaces: give one with -n)"
                )
                self._notes.append(f"{resource.plural} may not be read{where}{hint}: {consequence}")
            elif error.status == MISSING:
                self._notes.append(
                    f"the cluster does not know the kind {resource.kind} (apply crds/): {consequence}"
                )
            else:
                raise
            return None


def describe_operators(bodies: Sequence[Mapping[str, Any]]) -> tuple[OperatorRow, ...]:
    """Return the operator's pods. Where none says that it is the active one, each is."""
    rows, labelled = [], False
    for body in bodies:
        metadata, status = body["metadata"], body.get("status", {})
        active = (metadata.get("labels") or {}).get(ACTIVE_LABEL) == "true"
        labelled = labelled or active
        containers = body.get("spec", {}).get("containers") or [{}]
        image = containers[0].get("image", "").partition("@")[0]
        conditions = {item["type"]: item["status"] for item in status.get("conditions") or ()}
        rows.append(
            OperatorRow(
                name=metadata["name"],
                ready=conditions.get("Ready") == "True" and "deletionTimestamp" not in metadata,
                active=active,
                version=image.rpartition(":")[2] if ":" in image.rpartition("/")[2] else "",
            )
        )
    if not labelled:
        rows = [row.model_copy(update={"active": row.ready}) for row in rows]
    return tuple(sorted(rows, key=lambda row: row.name))


def narrow(found: Installation, name: str) -> Installation:
    """Return what has that name, and the budgets that may refuse it. `name`: `NAME` or `NAMESPACE/NAME`."""

    def named(item: LLMDeployment | LLMRoute) -> bool:
        return name in {item.metadata.name, item.key}

    return replace(
        found,
        deployments=[item for item in found.deployments if named(item)],
        routes=[item for item in found.routes if named(item)],
    )
