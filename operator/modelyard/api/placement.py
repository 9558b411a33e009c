"""Where a model may run: kinds of accelerator, how many of them, and on how many nodes."""

from typing import Annotated

from pydantic import Field

from modelyard.api.meta import ApiModel, DnsSubdomain, LabelKey, LabelValue

MOST_NODES = 16
"""Upper bound of `placement.accelerators[].nodes`. With eight accelerators a node that is more memory than any model
of the catalogue needs in any format."""


class AcceleratorOption(ApiModel):
    """A kind of accelerator that the model may run on."""

    class_name: DnsSubdomain = Field(alias="class", description="Name of an AcceleratorClass.")
    count: Annotated[int, Field(ge=1, le=16)] | None = Field(
        default=None,
        description="Accelerators of one replica, all on one node; where it spans nodes, on each of them. "
        "Default: what the model needs.",
    )
    nodes: Annotated[int, Field(ge=1, le=MOST_NODES)] = Field(
        default=1,
        description="Nodes that one replica spans. More than 1: each node holds some of the layers, a replica is a "
        "group of so many pods, and the cluster needs LeaderWorkerSet. Engine vLLM only.",
    )
    requests_per_minute: Annotated[int, Field(ge=1, le=10_000_000)] | None = Field(
        default=None,
        description="Requests that one replica answers per minute within its objective, as you measured it. "
        "Default: worked out from model, accelerator and objective.",
    )


class SpotUse(ApiModel):
    """How far a deployment may use spot capacity."""

    on_demand_base: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=1, description="Replicas that are never spot, as far as there are that many."
    )


class Placement(ApiModel):
    """Where it may run."""

    accelerators: Annotated[
        tuple[AcceleratorOption, ...],
        Field(
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["class"]},
            description="Kinds of accelerator that it may run on. The cheapest that meets the objective and can be had "
            "is used; the order decides between equals. Default: every AcceleratorClass.",
        ),
    ] = ()
    spot: SpotUse | None = Field(
        default=None, description="Allow spot capacity of the classes that have it. Absent: on demand only."
    )
    node_selector: Annotated[dict[LabelKey, LabelValue], Field(max_length=16)] = Field(default_factory=dict)
    priority: DnsSubdomain | None = Field(default=None, description="Name of a PriorityClass.")
