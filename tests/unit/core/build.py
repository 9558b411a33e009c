"""Short ways to write the objects that a decision looks at. The defaults serve one model on one GPU class."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.llmprovider import LLMProvider
from modelyard.api.llmroute import LLMRoute
from modelyard.api.llmtenant import LLMTenant
from modelyard.api.meta import Refusal
from modelyard.core.inventory import Node, Pool
from modelyard.core.memory import Parallelism
from modelyard.core.plan import Placement, VariantPlan
from modelyard.core.snapshot import ChildDeployment, GatewayReading, Pod, Provider, Snapshot
from modelyard.core.variants import Variant, variant_name

KEY = "team/llama"
CREATED = "2026-01-01T00:00:00Z"
NOW = 1_800_000_000.0
"""Unix seconds of a test's present, in 2027: later than every creation here."""


def make_deployment(
    key: str = KEY,
    *,
    created: str = CREATED,
    model: Mapping[str, Any] | None = None,
    classes: tuple[str, ...] = ("l4",),
    requests_per_minute: int | None = 60,
    status: Mapping[str, Any] | None = None,
    **spec: Any,
) -> LLMDeployment:
    """An LLMDeployment; with neither `replicas` nor `scaling` it has one replica."""
    namespace, name = key.split("/")
    if "replicas" not in spec and "scaling" not in spec:
        spec["replicas"] = 1
    options = [{"class": item, "requestsPerMinute": requests_per_minute} for item in classes]
    return LLMDeployment.model_validate(
        {
            "metadata": {
                "name": name,
                "namespace": namespace,
                "generation": 3,
                "creationTimestamp": created,
            },
            "spec": {
                "model": {"source": "hf://org/model", **(model or {})},
                "placement": {"accelerators": options},
                **spec,
            },
            "status": dict(status or {}),
        }
    )


def make_route(key: str, model: str, targets: Mapping[str, int], *, created: str = CREATED) -> LLMRoute:
    """An LLMRoute; `targets` are weights by the deployment's name."""
    namespace, name = key.split("/")
    return LLMRoute.model_validate(
        {
            "metadata": {
                "name": name,
                "namespace": namespace,
                "generation": 2,
                "creationTimestamp": created,
            },
            "spec": {
                "model": model,
                "targets": [{"deployment": item, "weight": weight} for item, weight in targets.items()],
            },
        }
    )


def make_targets_route(
    key: str, model: str, *targets: Mapping[str, Any], created: str = CREATED, **spec: Any
) -> LLMRoute:
    """An LLMRoute with these targets. `spec` are further fields of it."""
    route = make_route(key, model, {"unused": 1}, created=created)
    body = {"metadata": route.metadata, "spec": {"model": model, "targets": list(targets), **spec}}
    return LLMRoute.model_validate(body)


def make_provider(
    name: str = "acme",
    *models: Mapping[str, Any],
    refusal: Refusal | None = None,
    trust: str | None = None,
    **spec: Any,
) -> Provider:
    """A provider that offers the model `large`, or these. `spec` are further fields of the LLMProvider."""
    fields = {"baseURL": "https://api.acme.example/v1", "models": list(models) or [{"name": "large"}], **spec}
    body = {"metadata": {"name": name, "namespace": "modelyard-system", "generation": 4}, "spec": fields}
    return Provider(LLMProvider.model_validate(body), trust, refusal)


def make_tenant(name: str = "acme", *, created: str = CREATED, **spec: Any) -> LLMTenant:
    """A tenant with one key. `spec` are further fields of it."""
    metadata = {
        "name": name,
        "namespace": "modelyard-system",
        "generation": 5,
        "creationTimestamp": created,
    }
    fields = {"keys": [{"name": "tenant-keys", "key": name}], **spec}
    return LLMTenant.model_validate({"metadata": metadata, "spec": fields})


def make_accelerator(name: str = "l4", *, price: str | None = "0.8", **changes: Any) -> AcceleratorClass:
    """A GPU class; the price is in US dollars per hour. `changes` are fields of the spec."""
    spec: dict[str, Any] = {"resourceName": "nvidia.com/gpu"}
    if price is not None:
        spec["price"] = {"onDemand": price}
    return AcceleratorClass.model_validate({"metadata": {"name": name}, "spec": spec | changes})


def make_node(name: str = "node-1", gpus: int = 1, **changes: Any) -> Node:
    """A node with so many GPUs, and the label `kind` that it has of its own name's first part."""
    fields: dict[str, Any] = {
        "labels": {"kind": name.split("-")[0]},
        "accelerators": {"nvidia.com/gpu": gpus},
    }
    return Node(name=name, **{**fields, **changes})


def make_variant(
    accelerator: AcceleratorClass | None = None,
    count: int = 1,
    *,
    capacity: float = 1.0,
    spot: bool = False,
    **changes: Any,
) -> Variant:
    """A variant whose price is that of the class. `changes` are fields of it."""
    accelerator = accelerator or make_accelerator()
    price = accelerator.spec.price
    fields: dict[str, Any] = {
        "name": variant_name(accelerator.metadata.name, count, spot=spot),
        "accelerator": accelerator,
        "parallelism": Parallelism(count, 1),
        "spot": spot,
        "pool": Pool("nvidia.com/gpu"),
        "capacity": capacity,
        "price": None if price is None else Decimal(price.on_demand) * count,
    }
    return Variant(**{**fields, **changes})


def make_placement(variant: Variant | None = None, replicas: int | None = 1, message: str = "") -> Placement:
    """A placement on one variant."""
    variant = variant or make_variant()
    return Placement(variant, (VariantPlan(variant, replicas or 0, replicas),), message=message)


def make_pod(name: str = "pod-a", key: str = KEY, **changes: Any) -> Pod:
    """A pod that serves, unless the changes say otherwise."""
    fields: dict[str, Any] = {
        "address": "10.0.0.1",
        "port": 8000,
        "phase": "Running",
        "scheduled": True,
        "ready": True,
    }
    return Pod(name=name, uid=name, deployment=key, **{**fields, **changes})


def make_snapshot(
    *deployments: LLMDeployment,
    routes: tuple[LLMRoute, ...] = (),
    classes: tuple[str, ...] = ("l4",),
    pods: Mapping[str, tuple[Pod, ...]] | None = None,
    children: Mapping[str, int] | None = None,
    reading: GatewayReading | None = None,
    wakes: Mapping[str, float] | None = None,
    tenants: tuple[LLMTenant, ...] = (),
) -> Snapshot:
    """A snapshot; `children` are the replicas of child Deployments on one L4."""
    return Snapshot(
        deployments={item.key: item for item in deployments},
        routes={item.key: item for item in routes},
        accelerators={name: make_accelerator(name) for name in classes},
        pods=pods or {},
        children={
            key: {variant_name("l4", 1, spot=False): ChildDeployment(replicas=count)}
            for key, count in (children or {}).items()
        },
        reading=reading,
        wakes=wakes or {},
        tenants={item.name: item for item in tenants},
    )
