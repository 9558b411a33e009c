"""For each constraint of each kind: manifests that must be accepted and manifests that must be refused.

Bounds come from the schema, so that both sides of each are tried; what a pattern or a rule means is said here by
hand. `tests/unit/api/test_completeness.py` proves that no constraint is left out.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from modelyard.api.crd import KINDS, build_schema
from tests.apiserver.manifests import ABSENT, Path, change_field, find_base, read_field, walk
from tests.apiserver.rules import RULE_CASES
from tests.apiserver.samples import DISTINCT, KEY_SAMPLES, MAP_KEYS, PATTERN_SAMPLES


@dataclass(frozen=True)
class Case:
    """A manifest, and what is to become of it."""

    constraint: str
    """Such as `LLMDeployment.spec.replicas: maximum` or `rule Scaling.min-not-above-max`."""
    label: str
    manifest: Mapping[str, Any]
    field: str | None = None
    """The field that the refusal names; None: the manifest is accepted."""
    message: str = ""
    """A part of the API server's message."""

    def __str__(self) -> str:
        return f"{self.constraint} / {self.label}"


def all_cases() -> list[Case]:
    cases = [case for kind in KINDS for case in _schema_cases(kind)]
    return cases + list(_rule_cases())


def format_path(path: Path) -> str:
    """Return the path as the API server writes it."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


def constraint_name(kind: str, path: Path, keyword: str) -> str:
    return f"{kind}.{'.'.join(map(str, path))}: {keyword}"


def _schema_cases(kind: str) -> Iterator[Case]:
    schema = build_schema(KINDS[kind].model)["properties"]["spec"]
    for path, node in walk(schema, ("spec",)):
        concrete = _concrete(kind, path)
        builder = _NodeCases(kind, path, concrete, node, find_base(kind, concrete))
        for method in (
            builder.types,
            builder.required,
            builder.numbers,
            builder.strings,
            builder.collections,
        ):
            yield from method()


def _concrete(kind: str, path: Path) -> Path:
    """Replace each `*` by a key that a manifest has."""
    result: Path = ()
    for step in path:
        if step == "*":
            step = next(iter(read_field(find_base(kind, result), result)))
        result = (*result, step)
    return result


_WRONG_TYPES: Final[Mapping[str, tuple[Any, ...]]] = {
    "string": (1, True, ["text"]),
    "integer": ("1", 1.5, True),
    "boolean": ("true", 1),
    "array": ("item", 1),
    "object": (["item"], "text"),
}


@dataclass(frozen=True)
class _NodeCases:
    """The cases of one node of a schema."""

    kind: str
    path: Path
    concrete: Path
    node: Mapping[str, Any]
    base: dict[str, Any]

    def accept(self, keyword: str, label: str, value: Any) -> Case:
        changed = change_field(self.base, self.concrete, value)
        return Case(constraint_name(self.kind, self.path, keyword), f"accepts {label}", changed)

    def reject(self, keyword: str, label: str, value: Any, message: str, below: Path = ()) -> Case:
        return Case(
            constraint_name(self.kind, self.path, keyword),
            f"refuses {label}",
            change_field(self.base, self.concrete, value),
            field=format_path((*self.concrete, *below)),
            message=message,
        )

    def types(self) -> Iterator[Case]:
        current = read_field(self.base, self.concrete)
        yield self.accept("type", "its type", current)
        for value in _WRONG_TYPES[self.node["type"]]:
            yield self.reject("type", repr(value), value, "Invalid value")

    def required(self) -> Iterator[Case]:
        for name in self.node.get("required", ()):
            value = {key: item for key, item in read_field(self.base, self.concrete).items() if key != name}
            yield self.accept("required", f"with {name}", read_field(self.base, self.concrete))
            yield self.reject("required", f"without {name}", value, "Required value", below=(name,))

    def numbers(self) -> Iterator[Case]:
        for keyword, step, message in (("minimum", -1, "greater than"), ("maximum", 1, "less than")):
            if keyword in self.node:
                bound = self.node[keyword]
                yield self.accept(keyword, str(bound), bound)
                yield self.reject(keyword, str(bound + step), bound + step, message)

    def strings(self) -> Iterator[Case]:
        if "enum" in self.node:
            for value in self.node["enum"]:
                yield self.accept("enum", value, value)
            yield self.reject("enum", "another word", "Nonesuch", "Unsupported value")
        if self.node["type"] != "string" or "enum" in self.node:
            return
        samples = PATTERN_SAMPLES[self.node.get("pattern", "")]
        limit = self.node["maxLength"]
        yield self.accept("maxLength", f"{limit} characters", samples.stretch(limit))
        yield self.reject("maxLength", f"{limit + 1} characters", samples.stretch(limit + 1), "Too long")
        if "minLength" in self.node:
            shortest = self.node["minLength"]
            yield self.accept("minLength", f"{shortest} characters", samples.shortest)
            yield self.reject("minLength", "fewer", samples.shortest[: shortest - 1], "at least")
        if "pattern" in self.node:
            for value in samples.accepted:
                yield self.accept("pattern", repr(value), value)
            for value in samples.refused:
                yield self.reject("pattern", repr(value), value, "should match")

    def collections(self) -> Iterator[Case]:
        if "maxItems" in self.node:
            limit = self.node["maxItems"]
            yield self.accept("maxItems", f"{limit} items", self._items(limit))
            yield self.reject("maxItems", f"{limit + 1} items", self._items(limit + 1), "Too many")
        if "minItems" in self.node:
            fewest = self.node["minItems"]
            yield self.accept("minItems", f"{fewest} items", self._items(fewest))
            yield self.reject("minItems", "fewer items", self._items(fewest - 1), "at least")
        if "x-kubernetes-list-map-keys" in self.node:
            item = self._items(1)[0]
            yield self.accept("unique", "other keys", self._items(2))
            yield self.reject("unique", "one key twice", [item, item], "Duplicate value", below=(1,))
        if "maxProperties" in self.node:
            limit = self.node["maxProperties"]
            keys = MAP_KEYS[self.path[-1]]
            yield self.accept("maxProperties", f"{limit} keys", dict.fromkeys(keys(limit), "1"))
            too_many = dict.fromkeys(keys(limit + 1), "1")
            yield self.reject("maxProperties", f"{limit + 1} keys", too_many, "Too many")
            if "minProperties" in self.node:
                fewest = self.node["minProperties"]
                yield self.accept("minProperties", f"{fewest} keys", dict.fromkeys(keys(fewest), "1"))
                too_few = dict.fromkeys(keys(fewest - 1), "1")
                yield self.reject("minProperties", "fewer keys", too_few, "should have at least")
            for key in KEY_SAMPLES.accepted if "x-kubernetes-validations" in self.node else ():
                yield self.accept("keys", repr(key), {key: "1"})
            for key in KEY_SAMPLES.refused if "x-kubernetes-validations" in self.node else ():
                yield self.reject("keys", repr(key), {key: "1"}, "each key")

    def _items(self, count: int) -> list[Any]:
        """Return items that differ in their keys."""
        items = [copy.deepcopy(read_field(self.base, self.concrete)[0]) for _ in range(count)]
        keys = self.node.get("x-kubernetes-list-map-keys", DISTINCT.get(self.path[-1], ()))
        for key in keys:
            for index, item in enumerate(items):
                item[key] = f"{item[key]}{index}"
        return items


def _rule_cases() -> Iterator[Case]:
    for rule in RULE_CASES:
        for verdict, patches in (("accepts", rule.accepted), ("refuses", rule.refused)):
            for patch in patches:
                changed: dict[str, Any] = rule.base
                for path, value in patch.items():
                    changed = change_field(changed, path, value)
                shown = ", ".join(
                    f"{format_path(path)}={'absent' if value is ABSENT else value}"
                    for path, value in patch.items()
                )
                refused = verdict == "refuses"
                yield Case(
                    f"rule {rule.name}",
                    f"{verdict} {shown or 'the base'}",
                    changed,
                    field=rule.field if refused else None,
                    message=rule.message if refused else "",
                )
