"""A status with every field that its model has."""

from collections.abc import Mapping
from typing import Any

from modelyard.api.meta import ApiModel
from tests.apiserver.samples import PATTERN_SAMPLES

TIME = "2026-01-02T03:04:05Z"


def fill_status(model: type[ApiModel]) -> dict[str, Any]:
    """Build it from Pydantic's own description of the model, not from the generated definition."""
    schema = model.model_fields["status"].annotation
    if not isinstance(schema, type) or not issubclass(schema, ApiModel):
        raise TypeError(f"{model.__name__} has no status model")
    described = schema.model_json_schema(by_alias=True)
    value = _fill("", described, described.get("$defs", {}))
    # The Ready condition is the one that columns show.
    value["conditions"] = [{**value["conditions"][0], "type": "Ready", "status": "True"}]
    return dict(value)


def _fill(name: str, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Any:
    if "$ref" in schema:
        return _fill(name, definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema:
        return _fill(name, schema["anyOf"][0], definitions)
    if "enum" in schema:
        return schema["enum"][0]
    if schema["type"] == "object":
        if "properties" not in schema:
            # A map of free keys: its values are numbers as text.
            return {"rate": "3.5", "margin": "-0.125"}
        return {key: _fill(key, item, definitions) for key, item in schema["properties"].items()}
    if schema["type"] == "array":
        return [_fill(name, schema["items"], definitions)]
    if schema["type"] == "integer":
        return 2
    if schema.get("format") == "date-time":
        return TIME
    return PATTERN_SAMPLES[schema["pattern"]].accepted[0] if "pattern" in schema else "text"
