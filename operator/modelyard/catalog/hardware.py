"""What the arithmetic of fit and speed needs to know of one accelerator."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Hardware:
    """One accelerator (one GPU, one MIG slice, or the share of a CPU node that one replica gets)."""

    name: str
    """The catalogue's name, such as `H100-SXM`; the class's own name where the catalogue has none."""
    memory: int
    """Bytes."""
    bandwidth: float | None = None
    """Bytes per second to its memory; None: not known."""
    throughput: Mapping[str, float] = field(default_factory=dict)
    """Dense FLOP/s by precision: `bf16`, `fp8`, `int8`, `fp4`. A precision that it lacks is absent."""
    link: float | None = None
    """Bytes per second and direction to the other accelerators of its node; None: not known."""
    on_demand: Decimal | None = None
    """US dollars per hour."""
    spot: Decimal | None = None
    """US dollars per hour."""
    price_source: str = ""
    """Where the price comes from, with its date."""
    partition: bool = False
    """A slice of a device (MIG). Slices cannot read each other's memory, so a model is never spread over several:
    https://docs.nvidia.com/datacenter/tesla/mig-user-guide/deployment-considerations.html."""
