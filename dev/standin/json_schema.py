"""A value for a JSON schema: what a model writes under `response_format`, or as the arguments of a tool.

Covers the keywords that OpenAI's structured outputs allow
(https://developers.openai.com/api/docs/guides/structured-outputs) except `pattern`; whatever else would need a
search for a value is refused.
"""

import math
from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

_RECURSION = 4
"""Levels after which optional parts are left out, so that schemas that contain themselves end."""

_DEEPEST = 64
"""Levels after which a schema has no finite value, or none that anybody wants."""

_FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "email": "someone@example.org",
    "time": "12:00:00Z",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_SCALARS = ("null", "string", "integer", "number", "boolean")
_WORD = "text"


def example(schema: object) -> object:
    """Return a value that the schema accepts; the same for the same schema.

    Raises ValueError that names the keyword if there is none, or if the stand-in cannot tell.
    """
    try:
        return _Examples(schema).make(schema, 0)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not a JSON schema: {error}") from error


class _Examples:
    def __init__(self, root: object) -> None:
        self._root = root

    def make(self, schema: object, depth: int) -> object:
        if schema is True:
            return _WORD
        if not isinstance(schema, Mapping):
            raise ValueError(f"{schema!r} is no JSON schema that accepts anything")  # noqa: TRY004
        if depth > _DEEPEST:
            raise ValueError(f"the schema is nested more than {_DEEPEST} levels deep")
        if "$ref" in schema:
            return self.make(self._resolve(schema["$ref"]), depth + 1)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][0]
        for keyword in ("anyOf", "oneOf"):
            if schema.get(keyword):
                return self.make(self._choose(schema[keyword], depth), depth + 1)
        if schema.get("allOf"):
            return self.make(self._merge(schema["allOf"]), depth + 1)
        return self._typed(schema, depth)

    def _typed(self, schema: Schema, depth: int) -> object:
        kind = schema.get("type", "object" if "properties" in schema else "string")
        if isinstance(kind, list):
            kind = kind[0]
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                count = max(schema.get("minItems", 0), int(depth < _RECURSION))
                count = min(count, schema.get("maxItems", count))
                return [self.make(schema.get("items", True), depth + 1) for _ in range(count)]
            case "string":
                return _string(schema)
            case "integer" | "number":
                return _number(schema, whole=kind == "integer")
            case "boolean":
                return True
            case "null":
                return None
        raise ValueError(f"type: {kind!r} is no JSON type")

    def _object(self, schema: Schema, depth: int) -> dict[str, object]:
        required = set(schema.get("required", ()))
        properties = schema.get("properties", {})
        if unknown := sorted(required - set(properties)):
            raise ValueError(f"required: {unknown[0]!r} has no schema in properties")
        return {
            name: self.make(entry, depth + 1)
            for name, entry in properties.items()
            if name in required or depth < _RECURSION
        }

    def _choose(self, options: list[Any], depth: int) -> object:
        """Return the first option; deep down, one that does not go on."""
        ends = [option for option in options if _is_scalar(option)]
        return ends[0] if ends and depth >= _RECURSION else options[0]

    def _merge(self, parts: list[Any]) -> Schema:
        merged: dict[str, Any] = {"properties": {}, "required": []}
        for part in parts:
            whole = self._resolve(part["$ref"]) if "$ref" in part else part
            properties, required = whole.get("properties", {}), whole.get("required", [])
            merged |= {
                **whole,
                "properties": merged["properties"] | properties,
                "required": [*merged["required"], *required],
            }
        return merged if merged["properties"] else {key: merged[key] for key in merged if key != "properties"}

    def _resolve(self, reference: str) -> Any:
        found: Any = self._root
        for part in reference.removeprefix("#").split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, Mapping) or key not in found:
                raise ValueError(f"$ref: {reference!r} is not in the schema")
            found = found[key]
        return found


def _is_scalar(option: object) -> bool:
    return isinstance(option, Mapping) and option.get("type") in _SCALARS


def _string(schema: Schema) -> str:
    if "pattern" in schema:
        raise ValueError("pattern: the stand-in finds no text for regular expressions")
    if "format" in schema:
        if schema["format"] not in _FORMATS:
            raise ValueError(f"format: the stand-in knows only {', '.join(_FORMATS)}")
        return _FORMATS[schema["format"]]
    shortest: int = schema.get("minLength", 0)
    text = _WORD * max(1, math.ceil(shortest / len(_WORD)))
    longest: int = schema.get("maxLength", len(text))
    return text[:longest]


def _number(schema: Schema, *, whole: bool) -> float:
    """Return the multiple nearest to zero inside the bounds; without one and if fractions may be, their middle."""
    step: float = schema.get("multipleOf", 1)
    low, above = schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf)
    high, below = schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf)
    bottom, top = max(low, above), min(high, below)
    nearest = math.ceil(bottom / step) if bottom > 0 else math.floor(top / step) if top < 0 else 0
    # One step further, if a bound itself is excluded.
    for value in (nearest * step, (nearest + 1) * step, (nearest - 1) * step):
        if low <= value <= high and above < value < below:
            return value
    if whole or "multipleOf" in schema or not bottom < top:
        raise ValueError("minimum, maximum: no such number lies between them")
    return float(bottom + top) / 2
