"""From files, an inventory or a cluster, and the model hub to the question that a plan answers."""

import asyncio
import os
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Final

from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.meta import ObjectMeta, Refusal
from modelyard.api.modelprofile import ModelProfile
from modelyard.cli.classes import catalogue_classes, complete_classes, named_classes
from modelyard.cli.inventory import Present, ReadInventory, build_present, read_inventory
from modelyard.cli.kubeconfig import find_access
from modelyard.cli.loads import read_loads, read_prices, state_recorded
from modelyard.cli.manifests import InputError, Reading
from modelyard.core.choice import find_profile
from modelyard.core.inventory import measure_node_sizes
from modelyard.core.plan import Placement
from modelyard.core.report.build import PLANNING_TIME, Question, state_load
from modelyard.core.report.deployment import Context
from modelyard.core.snapshot import Snapshot
from modelyard.core.state import Policy
from modelyard.render.children import check_workload
from modelyard.render.workload import Workload
from modelyard.runtime.settings import OperatorSettings

LIVE: Final = "live"
HUB_TIMEOUT: Final = 10.0
"""Seconds for one request to the hub, as the operator has it."""
HUB_READERS: Final = 8
"""Models that are asked for at a time: a pipeline does not wait minutes for a fleet's worth of answers."""

_OFFLINE: Final = Refusal("Offline", "set model.profile in the spec, or plan without --offline")
_NOT_ON_HUB: Final = Refusal("NotOnHub", "it is not on the hub; set model.profile in the spec")


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What the command line says beside the files."""

    namespace: str = "default"
    against: str | None = None
    """`live`, or the path of an inventory file; None: nothing."""
    kubeconfig: Path | None = None
    context: str | None = None
    """Of the kubeconfig; None: its current one."""
    load: Path | None = None
    prices: Path | None = None
    budget: Decimal | None = None
    """US dollars per day."""
    offline: bool = False
    prune: bool = False
    model_folders: Mapping[str, Path] = field(default_factory=dict)
    """Folders with `config.json` and weights of models, by `model.source`."""


def build_question(reading: Reading, options: PlanOptions) -> Question:
    """Return what to answer.

    Raises InputError for a file that is not as it should be, and ApiError for a cluster that cannot be read.
    """
    rows = read_loads(options.load, options.namespace) if options.load is not None else {}
    prices = read_prices(options.prices, options.namespace) if options.prices is not None else ()
    objects = [manifest.object for manifest in reading.manifests]
    planned = {
        item.key: item
        for found in objects
        if isinstance(found, LLMDeployment)
        for item in (_place(found, options.namespace),)
    }
    own = {item.metadata.name: item for item in objects if isinstance(item, AcceleratorClass)}
    present, accelerators, notes, missing = _look(own, planned, options)
    gone = frozenset(present.running) - set(planned) if present is not None and options.prune else frozenset()
    deployments = _merge(planned, present, gone)
    local, unused = _read_folders(deployments.values(), options.model_folders)
    profiles, unread = _read_profiles(deployments.values(), local, offline=options.offline)
    loads = {
        key: state_recorded(item, rows[key]) if key in rows else state_load(item)
        for key, item in deployments.items()
    }
    notes += unused
    notes += [
        f"--load: {key} is no deployment here: its row is not used" for key in sorted(set(rows) - set(loads))
    ]
    return Question(
        snapshot=_snapshot(deployments, accelerators, present, gone, profiles),
        planned=frozenset(planned),
        loads=loads,
        context=Context(Policy(), unread, missing, prices, _find_warnings(reading, options.namespace)),
        running=None if present is None else present.running,
        pruned=gone,
        previous={} if present is None else present.deployments,
        budget=options.budget,
        problems=tuple(reading.problems),
        notes=(*reading.notes, *notes),
        check=check_placement,
        now=time.time() if present is not None and present.live else PLANNING_TIME,
    )


def check_placement(deployment: LLMDeployment, placement: Placement) -> Refusal | None:
    """Return why the workloads of a placement cannot be built: the operator's own check before it applies anything."""
    settings = OperatorSettings().render
    for item in placement.variants:
        workload = Workload(
            deployment=deployment,
            accelerator=item.variant.accelerator,
            count=item.variant.count,
            replicas=item.replicas,
            pipeline=item.variant.parallelism.pipeline,
            nodes=item.variant.nodes,
            spot=item.variant.spot,
            fitting_context=item.variant.fitting_context,
        )
        refusal = check_workload(workload, settings)
        if refusal is not None:
            return refusal
    return None


def _find_warnings(reading: Reading, namespace: str) -> dict[str, tuple[str, ...]]:
    """Return what the API server would drop of a model's profile, by deployment: the sum of its fit lacks that."""
    found = {}
    for manifest in reading.manifests:
        if not isinstance(manifest.object, LLMDeployment):
            continue
        title = f"LLMDeployment {manifest.object.metadata.name}"
        warnings = tuple(
            f"{problem.field}: {problem.message}"
            for problem in reading.problems
            if problem.severity == "Warning"
            and (problem.file, problem.object) == (manifest.file, title)
            and problem.field.startswith("spec.model.profile")
        )
        if warnings:
            found[_place(manifest.object, namespace).key] = warnings
    return found


def _place(deployment: LLMDeployment, namespace: str) -> LLMDeployment:
    """Return the deployment in its namespace."""
    if deployment.metadata.namespace:
        return deployment
    return deployment.model_copy(
        update={"metadata": deployment.metadata.model_copy(update={"namespace": namespace})}
    )


def _look(
    own: Mapping[str, AcceleratorClass], planned: Mapping[str, LLMDeployment], options: PlanOptions
) -> tuple[Present | None, dict[str, AcceleratorClass], list[str], frozenset[str]]:
    """Return what there is, every class, notes, and the classes that are named and defined nowhere.

    A file goes before what there is, as it would once it is applied. A cluster says which classes exist, so the
    catalogue adds none to it.
    """
    named = named_classes(planned.values())
    if options.against == LIVE:
        # The Kubernetes client takes a second to import: without a cluster it is not needed.
        from modelyard.cli.live import read_cluster

        present = asyncio.run(read_cluster(find_access(options.kubeconfig, options.context)))
        accelerators = {**present.accelerators, **own}
        absent = sorted(named - set(accelerators))
        notes = [f"AcceleratorClass {name} does not exist in the cluster" for name in absent]
        return present, accelerators, [*present.notes, *notes], frozenset()
    inventory = _read_inventory(Path(options.against)) if options.against is not None else None
    known = {**(inventory.accelerators if inventory is not None else {}), **own}
    if inventory is not None:
        document = inventory.document
        named |= {entry.class_name for entry in document.nodes if entry.class_name is not None}
        named |= {entry.class_name for entry in document.running}
    accelerators, notes, missing = complete_classes(known, named)
    if not accelerators and any(not item.spec.placement.accelerators for item in planned.values()):
        accelerators = catalogue_classes()
        notes.append(
            "no AcceleratorClass is in the files: every accelerator of the catalogue with a price is considered"
        )
    notes += [f"AcceleratorClass {name} is defined nowhere: it is left out" for name in sorted(missing)]
    if inventory is None:
        return None, accelerators, notes, missing
    try:
        present = build_present(inventory, accelerators, options.namespace)
    except InputError as error:
        raise InputError(f"{options.against}: {error}") from error
    return present, accelerators, [*notes, *present.notes], missing


def _read_inventory(path: Path) -> ReadInventory:
    try:
        return read_inventory(path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _merge(
    planned: Mapping[str, LLMDeployment], present: Present | None, gone: frozenset[str]
) -> dict[str, LLMDeployment]:
    """Return every deployment that will be, the files' specs on the objects that exist already."""
    if present is None:
        return dict(planned)
    merged = {key: item for key, item in present.deployments.items() if key not in gone}
    for key, item in planned.items():
        live = present.deployments.get(key)
        if live is None:
            merged[key] = item
            continue
        known: ObjectMeta = live.metadata
        update = {"uid": known.uid, "creation_timestamp": known.creation_timestamp}
        metadata = item.metadata.model_copy(update=update)
        merged[key] = item.model_copy(update={"metadata": metadata, "status": live.status})
    return merged


def _snapshot(
    deployments: Mapping[str, LLMDeployment],
    accelerators: Mapping[str, AcceleratorClass],
    present: Present | None,
    gone: frozenset[str],
    profiles: Mapping[str, ModelProfile],
) -> Snapshot:
    managed = frozenset(deployments)
    inventory = present.measure(managed, gone) if present is not None else None
    return Snapshot(
        deployments=dict(sorted(deployments.items())),
        accelerators=accelerators,
        pods={} if present is None else {key: pods for key, pods in present.pods.items() if key in managed},
        children={}
        if present is None
        else {key: children for key, children in present.children.items() if key in managed},
        inventory=inventory,
        node_sizes=measure_node_sizes(accelerators, inventory),
        priorities={} if present is None else present.priorities,
        profiles=profiles,
    )


def _read_folders(
    deployments: Iterable[LLMDeployment], folders: Mapping[str, Path]
) -> tuple[dict[str, ModelProfile], list[str]]:
    """Return the architectures of models in folders, by source, and notes on folders that are of no use.

    Raises InputError for a folder that holds no model that can be read.
    """
    if not folders:
        return {}, []
    # The hub's client is only imported where a model is read: most plans read none.
    from modelyard.runtime.hub import read_local

    unknown = _list_unknown(deployments)
    profiles, notes = {}, []
    for source, folder in folders.items():
        profile = read_local(folder)
        if isinstance(profile, Refusal):
            raise InputError(f"--model-folder {source}: {profile.message}")
        if source in unknown:
            profiles[source] = profile
        else:
            notes.append(
                f"--model-folder: the folder of {source} is not used: no deployment has that source, or its spec or "
                "the catalogue describes the model"
            )
    return profiles, notes


def _list_unknown(deployments: Iterable[LLMDeployment]) -> list[str]:
    """Return the sources of models that neither their spec nor the catalogue describes."""
    return sorted({item.spec.model.source for item in deployments if find_profile(item, {}) is None})


def _read_profiles(
    deployments: Iterable[LLMDeployment], local: Mapping[str, ModelProfile], *, offline: bool
) -> tuple[dict[str, ModelProfile], dict[str, Refusal]]:
    """Return the architectures that neither spec nor catalogue gives, by source, and why others are not known."""
    wanted = [source for source in _list_unknown(deployments) if source not in local]
    unread = {source: _NOT_ON_HUB for source in wanted if not source.startswith("hf://")}
    asked = [source for source in wanted if source not in unread]
    profiles = dict(local)
    if offline or not asked:
        return profiles, unread | dict.fromkeys(asked, _OFFLINE)
    with ThreadPoolExecutor(HUB_READERS) as readers:
        for source, answer in zip(asked, readers.map(_read_profile, asked), strict=True):
            if isinstance(answer, Refusal):
                unread[source] = answer
            else:
                profiles[source] = answer
    return profiles, unread


def _read_profile(source: str) -> ModelProfile | Refusal:
    from modelyard.runtime.hub import read_profile

    # HF_TOKEN is what the hub's own tools read; it goes to the hub's address only.
    return read_profile(source, endpoint=None, token=os.environ.get("HF_TOKEN"), timeout=HUB_TIMEOUT)
