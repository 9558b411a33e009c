"""Kopf as an informer, and nothing else: indices hold small views, events call back with a key.

No Kopf annotations, no finalizers, no handler progress: only `@kopf.index` and `@kopf.on.event` are used, which
never touch the objects. Handlers hold no logic and never raise: Kopf drops their errors. They are coroutines: others
Kopf runs in threads, where nothing of the event loop may be touched and each event waits twice for its turn.
"""

import asyncio
import functools
import signal
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import kopf
import kubernetes.aio.client as api

from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.llmroute import LLMRoute
from modelyard.api.meta import LABEL_DEPLOYMENT
from modelyard.core.snapshot import Pod
from modelyard.kube.projections import (
    Seen,
    SeenChild,
    SeenNode,
    SeenPriority,
    project_child,
    project_node,
    project_object,
    project_pod,
    project_priority,
    project_route,
)
from modelyard.kube.resources import (
    ACCELERATOR_CLASSES,
    CHILDREN,
    DEPLOYMENTS,
    LLM_DEPLOYMENTS,
    LLM_ROUTES,
    NODES,
    PODS,
    PRIORITY_CLASSES,
    Resource,
)

V = TypeVar("V")

OnChange = Callable[[Resource, str, "Change"], None]
"""Called in the event loop with the kind, `namespace/name` of the object (of the LLMDeployment, for children and pods),
and the event."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a watch event says of an object."""

    name: str
    version: str
    """`spec_version`."""
    gone: bool


@dataclass
class Indices:
    """Kopf's indices, read-only, once it has started. Each maps a key to a collection of views."""

    deployments: Mapping[str, Iterable[Seen[LLMDeployment]]] = field(default_factory=dict)
    routes: Mapping[str, Iterable[Seen[LLMRoute]]] = field(default_factory=dict)
    accelerators: Mapping[str, Iterable[Seen[AcceleratorClass]]] = field(default_factory=dict)
    pods: Mapping[str, Iterable[Pod]] = field(default_factory=dict)
    children: Mapping[str, Iterable[SeenChild]] = field(default_factory=dict)
    """By `namespace/name` of their LLMDeployment, like the pods."""
    nodes: Mapping[str, Iterable[SeenNode]] | None = None
    """None: nodes may not be read."""
    priorities: Mapping[str, Iterable[SeenPriority]] | None = None
    started: bool = False
    """Whether Kopf has handed over its indices; until then they are empty stand-ins."""


def first(index: Mapping[str, Iterable[V]], key: str) -> V | None:
    """Return the only view under a key, or None."""
    return next(iter(index[key]), None) if key in index else None


def object_key(metadata: Mapping[str, Any]) -> str:
    """Return `namespace/name`, or `name` of a cluster-scoped object."""
    namespace = metadata.get("namespace")
    return f"{namespace}/{metadata['name']}" if namespace else str(metadata["name"])


def owner_key(metadata: Mapping[str, Any]) -> str:
    """Return `namespace/name` of the LLMDeployment that a child or pod is labelled with."""
    return f"{metadata['namespace']}/{metadata['labels'][LABEL_DEPLOYMENT]}"


def spec_version(metadata: Mapping[str, Any]) -> str:
    """Return what changes when the spec does: the generation, or the resourceVersion of kinds without one."""
    return str(metadata.get("generation") or metadata["resourceVersion"])


def build_registry(
    configuration: api.Configuration,
    indices: Indices,
    on_change: OnChange,
    optional: frozenset[Resource] = frozenset(),
) -> kopf.OperatorRegistry:
    """Return the handlers: one index and one event callback per kind.

    `optional` are those of `OPTIONAL` that may be read. A watch without the right ends the process.
    """
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await connection_info(configuration)

    @kopf.on.startup(registry=registry)
    async def capture(**kwargs: Any) -> None:
        indices.deployments = kwargs["llmdeployments"]
        indices.routes = kwargs["llmroutes"]
        indices.accelerators = kwargs["acceleratorclasses"]
        indices.pods = kwargs["pods"]
        indices.children = kwargs["deployments"]
        indices.nodes = kwargs.get("nodes")
        indices.priorities = kwargs.get("priorityclasses")
        indices.started = True

    watch = _Watches(registry, on_change)
    for resource, project_own in _OWN.items():
        watch.index(resource, object_key, project_own)
        watch.call_back(resource, object_key)
    watch.index(PODS, owner_key, project_pod, _LABELLED)
    watch.index(DEPLOYMENTS, owner_key, project_child, _LABELLED)
    for resource in (PODS, *CHILDREN):
        watch.call_back(resource, owner_key, _LABELLED)
    for resource, project in OPTIONAL.items():
        if resource in optional:
            watch.index(resource, object_key, project)
            watch.call_back(resource, object_key)
    return registry


_LABELLED = {LABEL_DEPLOYMENT: kopf.PRESENT}
_OWN: Mapping[Resource, Callable[[Mapping[str, Any]], Any]] = {
    LLM_DEPLOYMENTS: functools.partial(project_object, LLMDeployment),
    LLM_ROUTES: project_route,
    ACCELERATOR_CLASSES: functools.partial(project_object, AcceleratorClass),
}


@dataclass(frozen=True, slots=True)
class _Watches:
    """Adds handlers to a registry."""

    registry: kopf.OperatorRegistry
    on_change: OnChange

    def index(
        self,
        resource: Resource,
        find_key: Callable[[Mapping[str, Any]], str],
        project: Callable[[Mapping[str, Any]], Any],
        labels: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep a view of every object, under the key that its metadata give."""

        @kopf.index(
            resource.group,
            resource.version,
            resource.plural,
            id=resource.plural,
            labels=labels,
            registry=self.registry,
        )
        async def index(body: kopf.Body, **_: Any) -> dict[str, Any]:
            return {find_key(body["metadata"]): project(body)}

    def call_back(
        self,
        resource: Resource,
        find_key: Callable[[Mapping[str, Any]], str],
        labels: Mapping[str, Any] | None = None,
    ) -> None:
        """Report every event."""

        @kopf.on.event(
            resource.group,
            resource.version,
            resource.plural,
            id=f"{resource.plural}-event",
            labels=labels,
            registry=self.registry,
        )
        async def changed(event: kopf.RawEvent, body: kopf.Body, **_: Any) -> None:
            metadata = body["metadata"]
            change = Change(str(metadata["name"]), spec_version(metadata), event["type"] == "DELETED")
            self.on_change(resource, find_key(metadata), change)


OPTIONAL: Mapping[Resource, Callable[[Mapping[str, Any]], Any]] = {
    NODES: project_node,
    PRIORITY_CLASSES: project_priority,
}
"""Kinds that the operator does without where it may not read them."""


async def connection_info(configuration: api.Configuration) -> kopf.ConnectionInfo:
    """Return the client's credentials in Kopf's form. The token is read anew: in a cluster it rotates."""
    authorization = await configuration.get_api_key_with_prefix("BearerToken") or ""
    scheme, _, token = authorization.partition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        scheme=scheme if token else None,
        token=token or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
    )


def build_settings() -> kopf.OperatorSettings:
    """Return Kopf's settings for an informer that must not fall silent."""
    settings = kopf.OperatorSettings()
    # One active replica by our own means; Kopf's peering is no lock.
    settings.peering.standalone = True
    settings.posting.enabled = False
    # New CRDs and namespaces are not our business, and watching them needs cluster-wide rights.
    settings.scanning.disabled = True
    # Seconds. A belt beside Kopf's own inactivity timeout (70 s): a watch never outlives five minutes.
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    settings.watching.connect_timeout = 10
    settings.watching.chunk_size = 500
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    # Filtered by the server: a cluster has far more pods than ours.
    for resource in (PODS, *CHILDREN):
        settings.watching.label_selectors[resource.plural] = LABEL_DEPLOYMENT
    return settings


IDENTITY = "modelyard"
"""Who this is among Kopf's peers. There are none: a Lease elects who acts."""


async def run_informers(
    registry: kopf.OperatorRegistry,
    settings: kopf.OperatorSettings,
    namespaces: tuple[str, ...] = (),
    told_to_end: Callable[[], None] | None = None,
) -> None:
    """Watch until cancelled, or a signal comes. Ends with an error when a watch dies for good: start anew then.

    With `told_to_end` SIGTERM ends nothing by itself: that is called instead, and whoever it tells cancels this.
    """
    tasks = await kopf.spawn_tasks(
        registry=registry,
        settings=settings,
        standalone=True,
        # Kopf's own choice holds the name of the user, which the number that a container runs as may not have.
        identity=IDENTITY,  # type: ignore[arg-type]  # a NewType that Kopf keeps to itself
        clusterwide=not namespaces,
        namespaces=namespaces,
    )
    if told_to_end is not None:
        # In the place of Kopf's own handler.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told_to_end)
    await kopf.run_tasks(tasks, ignored=_Every())


class _Every(Collection[asyncio.Task[Any]]):
    """Every task there is: after its own end Kopf waits 5 s for all that it does not ignore, and then cancels it.

    That would be what acts, and gRPC's own tasks: a server without them cannot be stopped.
    """

    def __contains__(self, _: object) -> bool:
        return True

    def __iter__(self) -> Iterator[asyncio.Task[Any]]:
        return iter(asyncio.all_tasks())

    def __len__(self) -> int:
        return len(asyncio.all_tasks())
