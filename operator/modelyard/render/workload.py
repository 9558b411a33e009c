"""One model on the accelerators that were chosen for it: what all builders start from."""

from dataclasses import dataclass, field
from typing import Any

from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.meta import (
    API_VERSION,
    COMPONENT_ENGINE,
    COMPONENT_LABEL,
    LABEL_ACCELERATOR,
    LABEL_DEPLOYMENT,
    LABEL_MANAGED_BY,
    LABEL_VARIANT,
    MANAGED_BY,
    QUEUE_LABELS,
    child_name,
)
from modelyard.api.quantities import parse_duration
from modelyard.catalog.engines import AcceleratorKind, accelerator_kind
from modelyard.core.variants import variant_name
from modelyard.render.sources import ADAPTER_MOUNT, MODEL_MOUNT, ClaimSource, HubSource, parse_source


@dataclass(frozen=True, slots=True)
class Parent:
    """A deployment and the policy of its routes: what children are named, labelled and closed off by."""

    deployment: LLMDeployment
    sovereign: bool = field(default=False, kw_only=True)
    """Whether a sovereign route sends requests to it: then its pods reach nothing outside themselves."""
    leaves_groups: bool = field(default=False, kw_only=True)
    """Whether groups still run that the spec does not want any more."""

    @property
    def has_groups(self) -> bool:
        """Whether some of its replicas may be groups of pods."""
        return self.leaves_groups or self.deployment.spec.spans_nodes

    @property
    def name(self) -> str:
        """The name of every child that all variants share."""
        return self.deployment.metadata.name

    @property
    def source(self) -> HubSource | ClaimSource:
        """Where the model comes from."""
        return parse_source(self.deployment.spec.model.source)

    @property
    def adapters(self) -> tuple[tuple[str, HubSource | ClaimSource], ...]:
        """Name and source of every LoRA adapter."""
        return tuple((item.name, parse_source(item.source)) for item in self.deployment.spec.model.adapters)

    @property
    def is_remote(self) -> bool:
        """True if a pod has to download something."""
        return any(
            isinstance(item, HubSource) for item in (self.source, *(source for _, source in self.adapters))
        )

    @property
    def selector(self) -> dict[str, str]:
        """The label that selects all pods."""
        return {LABEL_DEPLOYMENT: self.name}

    @property
    def serving_selector(self) -> dict[str, str]:
        """The labels that select the pods that answer requests: of groups, their leaders."""
        if not self.has_groups:
            return self.selector
        return {**self.selector, COMPONENT_LABEL: COMPONENT_ENGINE}

    @property
    def labels(self) -> dict[str, str]:
        """Labels of every child."""
        return {
            COMPONENT_LABEL: COMPONENT_ENGINE,
            "app.kubernetes.io/instance": self.name,
            LABEL_MANAGED_BY: MANAGED_BY,
            "app.kubernetes.io/name": self.deployment.spec.engine.name.lower(),
            **self.selector,
        }

    def build_metadata(self) -> dict[str, Any]:
        """Return the metadata of a child.

        The owner reference lets garbage collection remove the child, with or without a running operator.
        `blockOwnerDeletion` would need the right to update the owner's finalizers, and buys nothing here.
        """
        metadata = self.deployment.metadata
        return {
            "name": self.name,
            "namespace": metadata.namespace,
            "labels": self.labels,
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": "LLMDeployment",
                    "name": self.name,
                    "uid": metadata.uid,
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        }


@dataclass(frozen=True, slots=True)
class Workload(Parent):
    """A deployment with its chosen accelerator and size."""

    accelerator: AcceleratorClass
    count: int
    """Accelerators of one replica, over all its nodes."""
    replicas: int | None
    """None leaves the field to an outside autoscaler (`actuator: External`)."""
    pipeline: int = 1
    """Accelerators, one after the other, that share the layers; the rest of `count` share each layer."""
    nodes: int = 1
    """Nodes that one replica spans: above 1 it is a group of so many pods."""
    spot: bool = False
    fitting_context: int | None = None
    """Tokens of the longest sequence that the accelerators hold, where the spec asks for none and the model's own
    does not fit."""

    @property
    def context_length(self) -> int | None:
        """Longest prompt plus answer, in tokens; None: what the model was made for."""
        return self.deployment.spec.model.context_length or self.fitting_context

    @property
    def variant(self) -> str:
        """`Variant.name`."""
        return variant_name(self.accelerator.metadata.name, self.count, spot=self.spot, nodes=self.nodes)

    @property
    def child_name(self) -> str:
        """The name of the child Deployment or LeaderWorkerSet."""
        return child_name(self.name, self.variant)

    @property
    def per_node(self) -> int:
        """Accelerators of one pod."""
        return self.count // self.nodes

    @property
    def tensor(self) -> int:
        """Accelerators that share each layer."""
        return self.count // self.pipeline

    @property
    def kind(self) -> AcceleratorKind:
        """Which build of the engine runs."""
        return accelerator_kind(self.accelerator.spec.resource_name)

    @property
    def claim_mounts(self) -> dict[str, str]:
        """Claim name to mount path. A claim that also holds the model is mounted once."""
        mounts = {}
        if isinstance(self.source, ClaimSource):
            mounts[self.source.claim] = MODEL_MOUNT
        for _, source in self.adapters:
            if isinstance(source, ClaimSource):
                mounts.setdefault(source.claim, f"{ADAPTER_MOUNT}/{source.claim}")
        return mounts

    @property
    def drain_seconds(self) -> int:
        """How long a leaving pod may finish its requests."""
        return parse_duration(self.deployment.spec.rollout.drain_timeout)

    @property
    def start_seconds(self) -> int:
        """How long a pod may take to download and load the model."""
        return parse_duration(self.deployment.spec.rollout.start_timeout)

    @property
    def provision_seconds(self) -> int:
        """How long a new node of the class takes; 0 if the class does not say."""
        provision_time = self.accelerator.spec.provision_time
        return parse_duration(provision_time) if provision_time else 0

    @property
    def variant_selector(self) -> dict[str, str]:
        """The labels that select the variant's pods; they never change, as a Deployment's selector may not."""
        return {**self.selector, LABEL_VARIANT: self.variant}

    @property
    def queue_labels(self) -> dict[str, str]:
        """Kueue's labels of the LLMDeployment.

        The pods of Deployments have them too: Kueue's webhook for Deployments sets them there, or Kueue may look at
        pods only. Those of a group get theirs from Kueue, which admits them together.
        """
        labels = self.deployment.metadata.labels
        return {name: labels[name] for name in QUEUE_LABELS if name in labels}

    @property
    def pod_labels(self) -> dict[str, str]:
        """Labels of the pods."""
        # A class name may be longer than a label value; the label is for people and dashboards.
        accelerator = self.accelerator.metadata.name[:63].rstrip("-.")
        own = {**self.labels, **self.variant_selector, LABEL_ACCELERATOR: accelerator}
        return {**own, **self.queue_labels} if self.nodes == 1 else own
