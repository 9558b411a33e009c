"""Generate the CustomResourceDefinitions from the models.

The schema that the API server enforces is never written by hand: types, bounds, patterns, defaults and rules
come from the Pydantic models, and `make crds` writes the result to `crds/`.
"""

import argparse
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import PydanticUndefined, core_schema, to_jsonable_python

from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.api.llmbudget import LLMBudget
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.llmprovider import LLMProvider
from modelyard.api.llmroute import LLMRoute
from modelyard.api.llmtenant import LLMTenant
from modelyard.api.meta import GROUP, UNOBSERVED, VERSION, ApiModel, Rule, Status, wire

Schema = dict[str, Any]

ANNOTATION_LIMIT: Final = 262_144
"""Bytes. `kubectl apply` keeps the whole manifest in an annotation, and the API server refuses more than this
(`TotalAnnotationSizeLimitB` in k8s.io/apimachinery)."""

INT32_LIMIT: Final = 2**31 - 1
"""Largest value of the OpenAPI format `int32`."""

HEADER: Final = "# Generated from operator/modelyard/api; do not edit: make crds\n"


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False
    """Only shown with `-o wide`."""


@dataclass(frozen=True)
class Kind:
    """What a CustomResourceDefinition says beside its schema."""

    model: type[ApiModel]
    plural: str
    short_name: str
    columns: tuple[Column, ...]
    namespaced: bool = True
    scale: Mapping[str, str] | None = None
    """The paths of the `/scale` subresource."""

    @property
    def name(self) -> str:
        """The kind, as manifests write it."""
        return self.model.__name__


def _condition(field: str) -> str:
    return f'.status.conditions[?(@.type=="Ready")].{field}'


_AGE = Column("Age", ".metadata.creationTimestamp", "date")

KINDS: Final[Mapping[str, Kind]] = {
    kind.name: kind
    for kind in (
        Kind(
            model=LLMDeployment,
            plural="llmdeployments",
            short_name="llmdep",
            columns=(
                Column("Model", ".status.model"),
                Column("Replicas", ".status.readyReplicas", "integer"),
                Column("Desired", ".status.scaling.desiredReplicas", "integer"),
                Column("Ready", _condition("status")),
                Column("Reason", _condition("reason")),
                Column("Cost/h", ".status.cost.perHour"),
                Column("Engine", ".spec.engine.name", wide=True),
                Column("Accelerator", ".status.placement.class", wide=True),
                Column("Cost/1M tokens", ".status.cost.perMillionTokens", wide=True),
                Column("Source", ".spec.model.source", wide=True),
                _AGE,
            ),
            scale={
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        ),
        Kind(
            model=LLMRoute,
            plural="llmroutes",
            short_name="llmr",
            columns=(
                Column("Model", ".spec.model"),
                Column("Policy", ".spec.policy"),
                Column("Target", ".status.choice.target"),
                Column("Spill%", ".status.spillPercent", "integer"),
                Column("Ready", _condition("status")),
                Column("Reason", _condition("reason")),
                Column("Data", ".spec.dataPolicy", wide=True),
                Column("Since", ".status.choice.since", wide=True),
                Column("Why", ".status.choice.reason", wide=True),
                Column("Break-even/min", ".status.choice.breakEvenPerMinute", wide=True),
                _AGE,
            ),
        ),
        Kind(
            model=LLMProvider,
            plural="llmproviders",
            short_name="llmprov",
            columns=(
                Column("URL", ".spec.baseURL"),
                Column("Region", ".spec.region"),
                Column("Ready", _condition("status")),
                Column("Reason", _condition("reason")),
                _AGE,
            ),
        ),
        Kind(
            model=LLMBudget,
            plural="llmbudgets",
            short_name="llmb",
            columns=(
                Column("Amount", ".spec.amount"),
                Column("Period", ".spec.period"),
                Column("Spent", ".status.spent"),
                Column("Share", ".status.share"),
                Column("Runs out", ".status.runsOut"),
                Column("Resets", ".status.periodEnd", wide=True),
                Column("Ready", _condition("status")),
                Column("Reason", _condition("reason")),
                _AGE,
            ),
        ),
        Kind(
            model=LLMTenant,
            plural="llmtenants",
            short_name="llmten",
            columns=(
                Column("Ready", _condition("status")),
                Column("Reason", _condition("reason")),
                _AGE,
            ),
        ),
        Kind(
            model=AcceleratorClass,
            plural="acceleratorclasses",
            short_name="accel",
            namespaced=False,
            columns=(
                Column("Resource", ".spec.resourceName"),
                Column("Memory", ".spec.memory"),
                Column("Cost/h", ".spec.price.onDemand"),
                Column("Billing", ".spec.billing"),
                _AGE,
            ),
        ),
    )
}
"""The kinds of the API group by name, in the order in which they are written."""


class _StructuralSchema(GenerateJsonSchema):
    """Pydantic's JSON schema, in the dialect that Kubernetes calls structural."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        # An absent field is left out on the wire. The API server drops a null before it applies defaults.
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        inner = self.generate_inner(schema["schema"])
        value = schema.get("default", PydanticUndefined)
        if value is PydanticUndefined:
            value = schema["default_factory"]()  # type: ignore[call-arg]
        if value is None:
            return inner
        # In full: the API server checks the rules of a default before it fills the defaults inside it.
        return {
            **inner,
            "default": wire(value) if isinstance(value, BaseModel) else to_jsonable_python(value),
        }

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        result: Schema = {
            "type": "object",
            "additionalProperties": self.generate_inner(schema["values_schema"]),
        }
        self.update_with_validations(result, schema, self.ValidationsMapping.object)
        keys = self.generate_inner(schema["keys_schema"])
        if "pattern" in keys:
            result["x-kubernetes-validations"] = [_key_validation(keys)]
        return result

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        model = schema["cls"]
        result = super().model_schema(schema)
        result["description"] = inspect.getdoc(model)
        if issubclass(model, ApiModel) and model.RULES:
            result["x-kubernetes-validations"] = [_validation(rule) for rule in model.RULES]
        return result


def _validation(rule: Rule[Any]) -> Schema:
    validation = {"rule": rule.cel, "message": rule.message, "reason": "FieldValueInvalid"}
    if rule.field_path is not None:
        validation["fieldPath"] = rule.field_path
    return validation


def build_schema(model: type[ApiModel]) -> Schema:
    """Return the structural schema of a kind.

    Raises ValueError for a field that has no bound, or that the dialect cannot say.
    """
    raw = model.model_json_schema(by_alias=True, schema_generator=_StructuralSchema)
    definitions = raw.pop("$defs")
    fields = raw["properties"]
    spec = _simplify(fields["spec"], definitions, f"{model.__name__}.spec")
    status = _simplify(fields["status"], definitions, f"{model.__name__}.status")
    status = _observed(status)
    kind = model.model_fields["status"].annotation
    if isinstance(kind, type) and issubclass(kind, Status) and kind.REPORTED:
        status["default"] = {"observedGeneration": UNOBSERVED}
    raw.pop("title")
    # The API server brings its own schema of metadata and refuses another.
    properties = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        "spec": spec,
        "status": status,
    }
    return {**raw, "properties": properties, "required": ["spec"]}


def _simplify(node: Schema, definitions: Mapping[str, Schema], path: str) -> Schema:
    """Inline references, drop titles and translate what the dialect says differently."""
    node = dict(node)
    while "$ref" in node:
        target = definitions[node.pop("$ref").rpartition("/")[2]]
        node = {**target, **node}
    node.pop("title", None)
    if "required" in node:
        # A copy: YAML would write two mentions of one list as an anchor and an alias.
        node["required"] = list(node["required"])
    unknown = {"anyOf", "oneOf", "allOf", "const", "prefixItems"} & node.keys()
    if unknown:
        raise ValueError(f"{path}: a structural schema cannot say {', '.join(sorted(unknown))}")
    if "properties" in node:
        node["properties"] = {
            name: _simplify(value, definitions, f"{path}.{name}")
            for name, value in node["properties"].items()
        }
    elif node.get("type") == "object":
        node["additionalProperties"] = _simplify(node["additionalProperties"], definitions, f"{path}.*")
    if "items" in node:
        node["items"] = _simplify(node["items"], definitions, f"{path}[]")
    if node.get("type") == "integer":
        node["format"] = "int32" if node.get("maximum", INT32_LIMIT + 1) <= INT32_LIMIT else "int64"
    _require_bound(node, path)
    return node


def _key_validation(keys: Schema) -> Schema:
    """Return the constraint on a map's keys as a rule on the map: the dialect has no `patternProperties`."""
    pattern = keys["pattern"].replace("\\", "\\\\")
    return {
        "rule": f"self.all(key, size(key) <= {keys['maxLength']} && key.matches('{pattern}'))",
        "message": f"each key has at most {keys['maxLength']} characters and matches {keys['pattern']}",
        "reason": "FieldValueInvalid",
    }


def _require_bound(node: Schema, path: str) -> None:
    """Raise ValueError for a list, map or string without an upper bound: it would make rules unaffordable."""
    bounded = {
        "array": "maxItems" in node,
        "string": bool({"maxLength", "enum"} & node.keys()) or node.get("format") == "date-time",
        "object": "properties" in node or "maxProperties" in node,
    }
    if not bounded.get(node.get("type", ""), True):
        raise ValueError(f"{path}: every list, map and string needs an upper bound")


def _observed(node: Schema) -> Schema:
    """Return a status schema without defaults: only the operator may say what is."""
    node = {key: value for key, value in node.items() if key != "default"}
    if "properties" in node:
        node["properties"] = {name: _observed(value) for name, value in node["properties"].items()}
    if "items" in node:
        node["items"] = _observed(node["items"])
    return node


def build_crd(kind: Kind) -> dict[str, Any]:
    """Return the CustomResourceDefinition of a kind."""
    subresources: dict[str, Any] = {"status": {}}
    if kind.scale is not None:
        subresources["scale"] = dict(kind.scale)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": [kind.short_name],
                "categories": ["modelyard"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": subresources,
                    "additionalPrinterColumns": [_column(column) for column in kind.columns],
                    "schema": {"openAPIV3Schema": build_schema(kind.model)},
                }
            ],
        },
    }


def _column(column: Column) -> dict[str, Any]:
    result: dict[str, Any] = {"name": column.name, "type": column.type, "jsonPath": column.path}
    return {**result, "priority": 1} if column.wide else result


def render_files() -> dict[str, str]:
    """Return the text of each file of `crds/` by its name.

    Raises ValueError for a file that `kubectl apply` could not keep in its annotation.
    """
    files = {}
    for kind in KINDS.values():
        name = f"{kind.plural}.{GROUP}.yaml"
        text = HEADER + yaml.safe_dump(build_crd(kind), sort_keys=False, width=110, allow_unicode=True)
        if len(text.encode()) > ANNOTATION_LIMIT:
            raise ValueError(f"{name} is above {ANNOTATION_LIMIT} bytes: shorten descriptions or rules")
        files[name] = text
    return files


def write_files(folder: Path) -> None:
    """Write `crds/`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in render_files().items():
        (folder / name).write_text(text, encoding="utf-8")


def find_differences(folder: Path) -> list[str]:
    """Return the names of files in `crds/` that are missing, left over or not what the models say."""
    expected = render_files()
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.yaml")}
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def main(arguments: list[str] | None = None, output: Callable[[str], object] = sys.stderr.write) -> int:
    """Write the files, or compare them with the models; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m modelyard.api.crd", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("crds"), help="folder of the files (%(default)s)")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file would change")
    options = parser.parse_args(arguments)
    if not options.check:
        write_files(options.output)
        return 0
    differences = find_differences(options.output)
    for name in differences:
        output(f"{options.output / name} is not what the models say: run make crds and commit the result\n")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
