"""No constraint without a manifest that it accepts and one that it refuses."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest
from pydantic import BaseModel

from modelyard.api.crd import KINDS
from modelyard.api.meta import ApiModel
from modelyard.api.validation import validate
from tests.apiserver.cases import Case, all_cases, constraint_name

CASES = all_cases()

KEYWORDS: Final[Mapping[str, str]] = {
    "minimum": "minimum",
    "maximum": "maximum",
    "minLength": "minLength",
    "maxLength": "maxLength",
    "pattern": "pattern",
    "enum": "enum",
    "minItems": "minItems",
    "maxItems": "maxItems",
    "maxProperties": "maxProperties",
    "minProperties": "minProperties",
    "required": "required",
    "patternProperties": "keys",
    "x-kubernetes-list-map-keys": "unique",
    "type": "type",
}
"""The words of Pydantic's JSON schema that constrain a value, and what the table of cases calls them."""

UNTRIED: Final = {
    "title",
    "description",
    "default",
    "properties",
    "items",
    "additionalProperties",
    "$ref",
} | {
    "propertyNames",  # The length of keys, tried together with their pattern.
    "x-kubernetes-list-type",
    "anyOf",
}
"""Words that constrain nothing by themselves."""


def test_every_constraint_of_every_field_is_tried_on_both_sides() -> None:
    sides = defaultdict(set)
    for case in CASES:
        sides[case.constraint].add(case.field is None)
    wanted = {name for kind in KINDS for name in constraints_of(kind)}
    wanted |= {f"rule {name}" for kind in KINDS for name in rules_of(KINDS[kind].model)}
    assert sides.keys() == wanted
    assert {name for name, both in sides.items() if both != {True, False}} == set()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_offline_check_finds_the_field(case: Case) -> None:
    fields = [problem.field for problem in validate(case.manifest) if problem.severity == "Error"]
    assert fields == [] if case.field is None else case.field in fields


def constraints_of(kind: str) -> set[str]:
    """Collect constraints from Pydantic's own description, which the generator of definitions does not use."""
    spec = KINDS[kind].model.model_fields["spec"].annotation
    assert isinstance(spec, type)
    assert issubclass(spec, BaseModel)
    schema = spec.model_json_schema(by_alias=True)
    return set(_constraints(kind, ("spec",), schema, schema["$defs"]))


def _constraints(
    kind: str, path: tuple[str | int, ...], node: Mapping[str, Any], definitions: Mapping[str, Any]
) -> Iterator[str]:
    if "$ref" in node:
        node = {**definitions[node["$ref"].rpartition("/")[2]], **node}
    for choice in node.get("anyOf", ()):
        if choice != {"type": "null"}:
            node = {**node, **choice}
    if "$ref" in node and "type" not in node:
        yield from _constraints(kind, path, node, definitions)
        return
    unknown = node.keys() - KEYWORDS.keys() - UNTRIED - {"$defs"}
    assert not unknown, f"{path}: no case tries {unknown}"
    for word in node.keys() & KEYWORDS.keys():
        yield constraint_name(kind, path, KEYWORDS[word])
    for name, child in node.get("properties", {}).items():
        yield from _constraints(kind, (*path, name), child, definitions)
    if "items" in node:
        yield from _constraints(kind, (*path, 0), node["items"], definitions)
    for child in (node.get("additionalProperties"), *node.get("patternProperties", {}).values()):
        if isinstance(child, Mapping):
            yield from _constraints(kind, (*path, "*"), child, definitions)


def rules_of(model: type[ApiModel]) -> set[str]:
    """Return the rules of a model and of all models that its fields hold."""
    found = {f"{model.__name__}.{rule.name}" for rule in model.RULES}
    for field in model.model_fields.values():
        for inner in models_in(field.annotation):
            found |= rules_of(inner)
    return found


def models_in(annotation: Any) -> Iterator[type[ApiModel]]:
    if isinstance(annotation, type) and issubclass(annotation, ApiModel):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from models_in(part)
