"""Compute resources and placement of an engine pod, in the form that the API server stores."""

from decimal import ROUND_CEILING, Decimal
from typing import Any

from modelyard.api.meta import Refusal, wire
from modelyard.api.quantities import parse_quantity
from modelyard.core.inventory import ZONE_LABEL
from modelyard.render.workload import Workload

_DECIMAL_SUFFIXES = ("m", "", "k", "M", "G", "T", "P", "E")
"""Powers of 1000, from 10^-3: the API server rounds resources up to thousandths."""
_BINARY_SUFFIXES = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
"""Powers of 1024."""
_MILLI = Decimal("0.001")
_BINARY_THRESHOLD = 1024
"""A binary quantity that is below it, or not whole, is written in the decimal form
(https://pkg.go.dev/k8s.io/apimachinery/pkg/api/resource#Quantity)."""


def multiply_quantity(text: str, factor: int) -> str:
    """Return a quantity times a factor in Kubernetes' canonical form: no fraction, the largest suffix possible.

    The API server stores that form, and a desired object must equal the stored one.
    """
    thousandths = int((parse_quantity(text) * factor / _MILLI).to_integral_value(rounding=ROUND_CEILING))
    units, rest = divmod(thousandths, 1000)
    if text.endswith("i") and rest == 0 and units >= _BINARY_THRESHOLD:
        return _write(units, 1024, _BINARY_SUFFIXES)
    return _write(thousandths, 1000, _DECIMAL_SUFFIXES)


def _write(number: int, base: int, suffixes: tuple[str, ...]) -> str:
    step = 0
    while number and number % base == 0 and step < len(suffixes) - 1:
        number, step = number // base, step + 1
    return f"{number}{suffixes[step]}" if number else "0"


def build_resources(workload: Workload) -> dict[str, Any]:
    """Return the resources of the engine container.

    CPU has no limit: throttling delays tokens, and the request already decides who gets the core. Memory is limited
    to the request where the weights live in it, on CPU-only classes: an engine that outgrows its request there would
    take its neighbours down. Beside GPUs, memory is mostly page cache and pinned buffers, whose peak while loading
    nobody can state in advance, so there is no limit.
    """
    spec = workload.accelerator.spec
    requests: dict[str, str] = {}
    limits: dict[str, str] = {}
    if spec.requests is not None:
        requests["cpu"] = multiply_quantity(spec.requests.cpu, workload.per_node)
        requests["memory"] = multiply_quantity(spec.requests.memory, workload.per_node)
        if spec.resource_name is None:
            limits["memory"] = requests["memory"]
    if spec.resource_name is not None:
        # An extended resource cannot be overcommitted: request and limit must be equal.
        requests[spec.resource_name] = limits[spec.resource_name] = str(workload.per_node)
    return {"requests": requests, "limits": limits} if limits else {"requests": requests}


def check_placement(workload: Workload) -> Refusal | None:
    """Refuse a node selector that contradicts the class: the user would get no pod, or the wrong accelerator."""
    own = workload.accelerator.spec.node_selector
    for key, value in sorted(workload.deployment.spec.placement.node_selector.items()):
        if own.get(key, value) != value:
            return Refusal(
                "PlacementConflict",
                f"placement.nodeSelector wants {key}={value}, but class {workload.accelerator.metadata.name} "
                f"has {key}={own[key]}: remove it, or choose another class",
            )
    return None


def build_placement(workload: Workload) -> dict[str, Any]:
    """Return the fields of the pod spec that say where it may run."""
    spec, placement = workload.accelerator.spec, workload.deployment.spec.placement
    selector = {**placement.node_selector, **spec.node_selector}
    tolerations = list(spec.tolerations)
    if workload.spot and spec.spot is not None:
        selector |= spec.spot.node_selector
        tolerations += spec.spot.tolerations
    fields = {
        "nodeSelector": selector,
        "tolerations": [wire(item) for item in tolerations],
        "runtimeClassName": spec.runtime_class_name,
        "priorityClassName": placement.priority,
        "affinity": _avoid_spot(workload),
        "topologySpreadConstraints": _spread_over_zones(workload),
    }
    return {key: value for key, value in fields.items() if value}


def _avoid_spot(workload: Workload) -> dict[str, Any] | None:
    """Keep pods on demand off the class's spot nodes. Node selector terms are alternatives: one label is enough."""
    spot = workload.accelerator.spec.spot
    if spot is None or workload.spot:
        return None
    terms = [
        {"matchExpressions": [{"key": key, "operator": "NotIn", "values": [value]}]}
        for key, value in sorted(spot.node_selector.items())
    ]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}


def _spread_over_zones(workload: Workload) -> list[dict[str, Any]] | None:
    """Spread spot pods evenly, so that the loss of one zone's spot capacity takes no more than its share."""
    if not workload.spot:
        return None
    return [
        {
            "maxSkew": 1,
            "topologyKey": ZONE_LABEL,
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": workload.variant_selector},
        }
    ]
