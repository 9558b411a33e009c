"""Objects made from the schemas of the kinds, as the API server would take them, and damaged ones.

Made here, because hypothesis-jsonschema (0.23.1, of 2024) does not run with the Hypothesis of the lock file.
"""

import copy
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from hypothesis import strategies as st

from modelyard.api.crd import KINDS, build_schema
from modelyard.api.meta import API_VERSION
from tests.apiserver.manifests import BASES, Path, change_field
from tests.fuzz import hostile

NAMESPACE = "team"
MOST_ITEMS = 3
"""Items of a list and keys of a map that are made at most: more of them find nothing new."""
CHEAP_LENGTH = 64
"""Characters up to which strings of a pattern are made."""


@cache
def from_schema(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    """Specs that the schema takes; cross-field rules may refuse them."""
    spec: dict[str, Any] = build_schema(KINDS[kind].model)["properties"]["spec"]
    return _node(spec)


def _node(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "object":
            return _map(schema) if "additionalProperties" in schema else _object(schema)
        case "array":
            return _list(schema)
        case "string":
            return _string(schema)
        case "integer":
            low, high = schema.get("minimum", -(2**63)), schema.get("maximum", 2**63 - 1)
            return (
                st.integers(low, high) | st.sampled_from((low, high)) | st.integers(low, min(low + 9, high))
            )
        case "boolean":
            return st.booleans()
        case other:
            raise TypeError(f"a schema of type {other!r} is not known here")


def _object(schema: Mapping[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    fields = {name: _node(child) for name, child in schema.get("properties", {}).items()}
    required = set(schema.get("required", ()))
    return st.fixed_dictionaries(
        {name: field for name, field in fields.items() if name in required},
        optional={name: field for name, field in fields.items() if name not in required},
    )


def _map(schema: Mapping[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    keys = st.sampled_from(("dtype", "seed", "max-num-seqs", "parallel", "zone", "example.com/a"))
    most = min(schema.get("maxProperties", MOST_ITEMS), MOST_ITEMS)
    return st.dictionaries(
        keys | hostile.strings.filter(lambda text: len(text) < 64),
        _node(schema["additionalProperties"]),
        min_size=schema.get("minProperties", 0),
        max_size=most,
    )


def _list(schema: Mapping[str, Any]) -> st.SearchStrategy[list[Any]]:
    keys = schema.get("x-kubernetes-list-map-keys")
    least = schema.get("minItems", 0)
    return st.lists(
        _node(schema["items"]),
        min_size=least,
        max_size=max(least, min(schema.get("maxItems", MOST_ITEMS), MOST_ITEMS)),
        unique_by=(lambda item: tuple(item.get(key) for key in keys)) if keys else None,
    )


def _string(schema: Mapping[str, Any]) -> st.SearchStrategy[str]:
    least, most = schema.get("minLength", 0), schema.get("maxLength", hostile.LARGE)
    if "pattern" not in schema:
        return hostile.strings.filter(lambda text: least <= len(text) <= most)
    made = st.from_regex(schema["pattern"], fullmatch=True, alphabet=st.characters(max_codepoint=126))
    return made.filter(lambda text: least <= len(text) <= min(most, CHEAP_LENGTH))


def repair(spec: dict[str, Any]) -> dict[str, Any]:
    """Give each target of an LLMRoute one of its two forms: hardly any that is drawn has one."""
    for place in (spec, *spec.get("rules", ())):
        for target in place["targets"]:
            if "provider" in target and "model" in target:
                target.pop("deployment", None)
                target.pop("adapter", None)
            else:
                target.pop("provider", None)
                target.pop("model", None)
                target.setdefault("deployment", "good")
    return spec


def manifest(kind: str, spec: Any, name: str = "fuzzed") -> dict[str, Any]:
    """A manifest with a spec."""
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


@st.composite
def damaged(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    """A good manifest of which one field, at any depth, was replaced by something hostile."""
    base = draw(st.sampled_from(BASES[kind]))
    path = draw(st.sampled_from(tuple(_paths(base["spec"], ("spec",)))))
    return change_field(copy.deepcopy(base), path, draw(hostile.json_values))


def manifests(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    """Of both sorts."""
    made = from_schema(kind).map(lambda spec: manifest(kind, spec))
    if kind != "LLMRoute":
        return made | damaged(kind)
    return made | from_schema(kind).map(lambda spec: manifest(kind, repair(spec))) | damaged(kind)


def _paths(value: Any, path: Path) -> Iterator[Path]:
    yield path
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _paths(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _paths(item, (*path, index))


def stored(body: Mapping[str, Any], name: str, namespace: str = NAMESPACE) -> dict[str, Any]:
    """The manifest as a watch shows it, whether or not the API server would have taken it."""
    metadata = {
        "name": name,
        "uid": f"uid-{name}",
        "resourceVersion": "7",
        "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    if KINDS[body["kind"]].namespaced:
        metadata["namespace"] = namespace
    return {**body, "metadata": metadata}
