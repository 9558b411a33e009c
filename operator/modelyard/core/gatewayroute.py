"""The HTTPRoute that leads from a Gateway of the cluster to ours: what is wrong with it, if anything.

Gateway API is optional. Where it is missing, that is told and nothing else is affected.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from modelyard.core.reasons import Code, Reason


@dataclass(frozen=True, slots=True)
class GatewayParent:
    """A Gateway that the route is to be attached to."""

    namespace: str
    name: str
    section: str | None = None
    """Name of one of its listeners; None: all that take the route."""

    def __str__(self) -> str:
        return "/".join(part for part in (self.namespace, self.name, self.section) if part)


@dataclass(frozen=True, slots=True)
class ParentReport:
    """What a Gateway's controller says of the route."""

    parent: GatewayParent
    condition: str
    """`Accepted` or `ResolvedRefs`."""
    status: bool
    message: str = ""
    current: bool = True
    """Whether it is about the newest form of the route."""


REPORTED = ("Accepted", "ResolvedRefs")
"""Conditions that every controller must set (https://gateway-api.sigs.k8s.io/reference/spec/#routeparentstatus)."""


def explain_attachment(
    parents: Iterable[GatewayParent], reports: Iterable[ParentReport]
) -> tuple[bool, Reason]:
    """Return whether every Gateway leads to us, and why not."""
    said = {(item.parent, item.condition): item for item in reports if item.current}
    wanted = tuple(parents)
    for parent in wanted:
        for condition in REPORTED:
            report = said.get((parent, condition))
            if report is not None and not report.status:
                return False, Reason(
                    Code.GATEWAY_ROUTE_REFUSED, f"Gateway {parent} says {condition} False: {report.message}"
                )
    silent = [parent for parent in wanted if not all((parent, name) in said for name in REPORTED)]
    if silent:
        names = ", ".join(str(parent) for parent in silent)
        return False, Reason(
            Code.GATEWAY_ROUTE_PENDING,
            f"Gateway {names} has not said that it takes the route: see whether it exists and its controller runs",
        )
    names = ", ".join(str(parent) for parent in wanted)
    return True, Reason(Code.GATEWAY_ROUTE_ATTACHED, f"Gateway {names} leads here")
