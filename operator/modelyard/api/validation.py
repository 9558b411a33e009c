"""Check a manifest offline as the API server will: the same schema, the same rules, the same verdict.

What the server does in order: it drops a status that a user sends, drops nulls and unknown fields, fills
defaults, checks types and bounds, and only if those hold the cross-field rules.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal, get_args

from pydantic import StringConstraints, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from modelyard.api.crd import KINDS, Kind, Schema, build_schema
from modelyard.api.llmdeployment import ModelSource
from modelyard.api.meta import API_VERSION, ApiModel, DnsLabel, DnsSubdomain, ModelName
from modelyard.api.quantities import Duration, Latency, Price, Quality, Quantity, Share

MAX_SHOWN: Final = 64
"""Characters of a refused value that a message repeats."""

_GENERATED_SUFFIX: Final = "00000"
"""Stands for the five characters that the API server appends to `metadata.generateName`."""

_HAS: Final = re.compile(r"\bhas\([^)]*\)")
_SELECTED: Final = re.compile(r"\.([A-Za-z]\w*)")
"""A field in a CEL expression, and what stands there like one: methods, which no field is called like."""

_FORMS: Final = {
    ModelSource: "hf://organisation/repository[:tag][@revision] or pvc://claim[/folder]",
    Duration: "90s, 10m or 1h30m",
    Latency: "50ms or 2s",
    Quantity: "2, 500m or 16Gi",
    Price: "2.4144",
    Quality: "0.85",
    Share: "0.8",
    DnsLabel: "llama-3-8b",
    DnsSubdomain: "llama-3.1-8b",
    ModelName: "llama-3.1-8b",
}
"""How what has a pattern is written: a pattern tells a person little."""

_NAME: Final[TypeAdapter[str]] = TypeAdapter(DnsSubdomain)
_NAMESPACE: Final[TypeAdapter[str]] = TypeAdapter(DnsLabel)


@dataclass(frozen=True)
class Problem:
    """What is wrong with one field."""

    field: str
    """Path as the API server writes it, such as `spec.placement.accelerators[0].class`."""
    message: str
    severity: Literal["Error", "Warning"] = "Error"
    """A Warning is accepted by the API server, but surely not what its author meant."""

    def __str__(self) -> str:
        """Return one line for people."""
        return f"{self.field}: {self.message}"


def validate(manifest: object) -> list[Problem]:
    """Return what the API server would refuse in a manifest, and the fields that it would drop.

    An empty list, or one of warnings only, means that the API server takes it.
    """
    return read_manifest(manifest)[1]


def read_manifest(manifest: object) -> tuple[ApiModel | None, list[Problem]]:
    """Return the object as the API server would store it, without status, and what `validate` says of the manifest.

    None if the API server would refuse it.
    """
    if not isinstance(manifest, Mapping):
        return None, [Problem("", "a manifest is a mapping with apiVersion, kind, metadata and spec")]
    kind = KINDS.get(str(manifest.get("kind")))
    if kind is None:
        return None, [Problem("kind", f"{_show(manifest.get('kind'))} is none of {', '.join(KINDS)}")]
    if manifest.get("apiVersion") != API_VERSION:
        return None, [Problem("apiVersion", f"{_show(manifest.get('apiVersion'))} must be {API_VERSION}")]
    # The server takes the status from the /status subresource only.
    document = {name: value for name, value in manifest.items() if name != "status"}
    pruned = _Pruned(document, kind)
    problems = pruned.problems
    metadata = _with_name(pruned.value.get("metadata"))
    problems += _check_names(metadata)
    model, found = _parse(kind.model, {**pruned.value, "metadata": metadata})
    problems += found
    if model is not None and not any(problem.severity == "Error" for problem in problems):
        problems += _check_rules(model, "")
    refused = any(problem.severity == "Error" for problem in problems)
    return None if refused else model, problems


@cache
def _schema_of(kind: str) -> Schema:
    return build_schema(KINDS[kind].model)


def _read_by_rules(schema: Schema) -> frozenset[str]:
    """Return the names of the fields whose values the rules of a schema read; `has()` alone reads none."""
    rules = (rule["rule"] for rule in schema.get("x-kubernetes-validations", ()))
    return frozenset(name for rule in rules for name in _SELECTED.findall(_HAS.sub("", rule)))


class _Pruned:
    """A manifest without nulls and unknown fields, and what was found on the way."""

    def __init__(self, document: Mapping[str, Any], kind: Kind) -> None:
        self.problems: list[Problem] = []
        scale = kind.scale or {}
        self._counted = scale.get("specReplicasPath", "").removeprefix(".")
        """The field behind the /scale subresource."""
        self.value = self._prune_mapping(document, _schema_of(kind.name), "", frozenset())

    def _prune(self, value: object, schema: Schema, path: str, read: frozenset[str]) -> object:
        if isinstance(value, Mapping) and schema.get("type") == "object":
            return self._prune_mapping(value, schema, path, read)
        if isinstance(value, list) and schema.get("type") == "array":
            items = [self._prune(item, schema["items"], f"{path}[{i}]", read) for i, item in enumerate(value)]
            self._check_unique(items, schema, path)
            return items
        if isinstance(value, float) and value.is_integer() and schema.get("type") == "integer":
            # The API server takes 2.0 for an integer, but not where a rule or /scale reads it.
            if path == self._counted or path.rpartition(".")[2] in read:
                self.problems.append(Problem(path, f"must be written as {int(value)}, not {value}"))
            return int(value)
        return value

    def _prune_mapping(
        self, value: Mapping[str, Any], schema: Schema, path: str, read: frozenset[str]
    ) -> dict[str, Any]:
        fields: Mapping[str, Schema] = schema.get("properties", {})
        any_field: Schema | None = schema.get("additionalProperties")
        read |= _read_by_rules(schema)
        result: dict[str, Any] = {}
        for name, item in value.items():
            child = fields.get(name, any_field)
            where = f"{path}.{name}" if path else str(name)
            if where == "metadata":
                result[name] = item
            elif child is None:
                message = "is no field of this kind: the API server drops it"
                self.problems.append(Problem(where, message, severity="Warning"))
            elif item is not None:
                result[name] = self._prune(item, child, where, read)
        return result

    def _check_unique(self, items: list[Any], schema: Schema, path: str) -> None:
        """Find two items of one key in a list that is a map, which no Pydantic type says."""
        keys: list[str] = schema.get("x-kubernetes-list-map-keys", [])
        seen: list[Any] = []
        for index, item in enumerate(items):
            identity = [item.get(key) for key in keys] if isinstance(item, Mapping) else None
            if keys and identity in seen:
                shown = ", ".join(f"{key} {value!r}" for key, value in zip(keys, identity or [], strict=True))
                self.problems.append(Problem(f"{path}[{index}]", f"Duplicate value: {shown} is there twice"))
            if identity is not None:
                seen.append(identity)


def _with_name(metadata: object) -> object:
    """Return metadata without nulls, and with a name as the server makes it from `generateName`."""
    if not isinstance(metadata, Mapping):
        return {} if metadata is None else metadata
    result = {name: value for name, value in metadata.items() if value is not None}
    if not result.get("name") and isinstance(result.get("generateName"), str):
        result["name"] = result["generateName"] + _GENERATED_SUFFIX
    return result


def _check_names(metadata: object) -> list[Problem]:
    """Check what Kubernetes asks of every name and namespace; Pydantic checks the rest of metadata."""
    problems = []
    for field, form, allowed in (
        ("name", _NAME, "digits, dashes and dots"),
        ("namespace", _NAMESPACE, "digits and dashes"),
    ):
        value = metadata.get(field) if isinstance(metadata, Mapping) else None
        # An absent namespace may be written as an empty one; an empty name may not.
        if not isinstance(value, str) or (field == "namespace" and not value):
            continue
        try:
            form.validate_python(value)
        except ValidationError:
            message = f"{_show(value)} must be lower-case letters, {allowed}"
            problems.append(Problem(f"metadata.{field}", message))
    return problems


def _parse(model: type[ApiModel], document: Mapping[str, Any]) -> tuple[ApiModel | None, list[Problem]]:
    """Parse with the API server's strictness: no string for a number, no other name for a field."""
    try:
        parsed = model.model_validate_json(
            json.dumps(document, default=str), strict=True, by_alias=True, by_name=False
        )
    except ValidationError as error:
        found = error.errors(include_url=False)
        # Pydantic leaves bad items out before it counts: a list of bad items is not also too short.
        return None, [
            Problem(_path(item["loc"]), _explain(item))
            for item in found
            if item["type"] != "too_short"
            or not any(_is_inside(other["loc"], item["loc"]) for other in found)
        ]
    return parsed, []


def _explain(error: ErrorDetails) -> str:
    if error["type"] == "missing":
        return error["msg"]  # Its input is the parent: showing that would not help.
    form = _forms().get(error.get("ctx", {}).get("pattern", ""))
    told = error["msg"] if form is None else f"Must be written like {form}"
    return f"{told}, not {_show(error['input'])}"


@cache
def _forms() -> dict[str, str]:
    """Return the forms by their patterns."""
    return {
        constraint.pattern: form
        for annotated, form in _FORMS.items()
        for constraint in get_args(annotated)[1:]
        if isinstance(constraint, StringConstraints) and isinstance(constraint.pattern, str)
    }


def _is_inside(inner: tuple[int | str, ...], outer: tuple[int | str, ...]) -> bool:
    return len(inner) > len(outer) and inner[: len(outer)] == outer


def _check_rules(value: object, path: str) -> Iterator[Problem]:
    """Yield the rules that do not hold, in this model and in all inside it."""
    if isinstance(value, ApiModel):
        for rule in value.RULES:
            if not rule.holds(value):
                # A kind's own rules are about its name, the only part of metadata that CEL sees there.
                yield Problem((path + (rule.field_path or "")).lstrip(".") or "metadata.name", rule.message)
        for name, field in type(value).model_fields.items():
            yield from _check_rules(getattr(value, name), f"{path}.{field.alias or name}")
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _check_rules(item, f"{path}[{index}]")


def _path(location: tuple[int | str, ...]) -> str:
    if location and location[-1] == "[key]":
        location = location[:-2]  # Pydantic names the key; the API server the map that holds it.
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


def _show(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"
