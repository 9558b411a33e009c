"""What of the chart's schema and README follows from something else: the spec of a class, and the table of values."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "modelyard"
SCHEMA = CHART / "values.schema.json"
README = CHART / "README.md"
ACCELERATOR_CLASS = ROOT / "crds" / "acceleratorclasses.modelyard.dev.yaml"

BEGIN, END = "<!-- values: python -m dev.charts -->", "<!-- /values -->"
"""What stands around the table in the README."""

_KEPT = frozenset(
    {
        "description",
        "type",
        "enum",
        "pattern",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "items",
        "required",
    }
)
"""Keywords that JSON Schema and the schemas of Kubernetes have in common; rules in CEL are the API server's."""


def schema_text() -> str:
    """Return the schema of the values, with the spec of AcceleratorClass as the kind has it."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    definition = yaml.safe_load(ACCELERATOR_CLASS.read_text(encoding="utf-8"))
    (version,) = definition["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    schema["definitions"]["AcceleratorClassSpec"] = _json_schema(spec)
    return json.dumps(schema, indent=2) + "\n"


def _json_schema(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return a structural schema as JSON Schema that refuses unknown fields."""
    made: dict[str, Any] = {key: value for key, value in node.items() if key in _KEPT}
    if "items" in node:
        made["items"] = _json_schema(node["items"])
    if isinstance(node.get("additionalProperties"), dict):
        made["additionalProperties"] = _json_schema(node["additionalProperties"])
    elif node.get("type") == "object":
        made["properties"] = {name: _json_schema(value) for name, value in node.get("properties", {}).items()}
        made["additionalProperties"] = False
    return made


def readme_text() -> str:
    """Return the chart's README, with its table of values."""
    text = README.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ValueError(f"{README} has not one table between {BEGIN} and {END}")
    return pattern.sub(lambda _: f"{BEGIN}\n{values_table()}\n{END}", text)


def values_table() -> str:
    """Return a row for each value: its name, its default, and what it is."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    rows = [
        f"| `{name}` | `{json.dumps(default)}` | {description} |"
        for name, default, description in _rows(schema, defaults, "")
    ]
    return "\n".join(["| value | default | is |", "| --- | --- | --- |", *rows])


def _rows(schema: Mapping[str, Any], defaults: Any, prefix: str) -> Iterator[tuple[str, Any, str]]:
    for name, node in schema["properties"].items():
        if name == "global":
            continue
        path, default = f"{prefix}{name}", defaults[name]
        if "properties" in node:
            yield from _rows(node, default, f"{path}.")
        else:
            yield path, default, node["description"].replace("|", "\\|")
