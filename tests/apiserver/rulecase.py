"""Makes accepting and rejecting manifests of a cross-field rule."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.apiserver.manifests import Path, parse_path

Patch = Mapping[Path, Any]


@dataclass(frozen=True)
class RuleCase:
    """Changes to a manifest that a rule lets through, and changes that only this rule refuses."""

    name: str
    """`Model.rule-name`."""
    base: dict[str, Any]
    accepted: tuple[Patch, ...]
    refused: tuple[Patch, ...]
    field: str
    message: str


def make_case(
    name: str,
    base: dict[str, Any],
    field: str,
    message: str,
    accepted: tuple[dict[str, Any], ...],
    refused: tuple[dict[str, Any], ...],
) -> RuleCase:
    """Write paths of fields as text, such as `spec.targets.0.weight`."""

    def parse(patches: tuple[dict[str, Any], ...]) -> tuple[Patch, ...]:
        return tuple({parse_path(path): value for path, value in patch.items()} for patch in patches)

    return RuleCase(name, base, parse(accepted), parse(refused), field, message)


def make_range(
    name: str, base: dict[str, Any], field: str, inside: tuple[str, ...], outside: tuple[str, ...]
) -> RuleCase:
    """Make the case of a duration that has to be within bounds."""
    return make_case(
        name,
        base,
        field,
        f"{field.rpartition('.')[2]} must be from",
        tuple({field: value} for value in inside),
        tuple({field: value} for value in outside),
    )
