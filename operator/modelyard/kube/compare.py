"""Whether an object already is what an apply would make it: desired and live are compared before any write.

Two questions, both needed: does the live object hold every desired value, and do we own no field that is no longer
desired? The second is answered from `metadata.managedFields`, where server-side apply keeps what we set.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from modelyard.api.meta import FIELD_MANAGER

_IDENTITY = frozenset({"apiVersion", "kind"})
_MERGE_KEYS = ("name", "containerPort", "port", "mountPath", "uid", "type", "key")
"""Fields that identify an item of a list in the kinds that we apply (list map keys of the Kubernetes API)."""


def is_applied(desired: Mapping[str, Any], live: Mapping[str, Any], subresource: str = "") -> bool:
    """Return whether applying `desired` would change nothing."""
    if not _holds(desired, live):
        return False
    return all(_present(path, desired) for path in _owned_paths(live, subresource))


def _holds(desired: object, live: object) -> bool:
    """Return whether every desired value stands in the live one."""
    if isinstance(desired, Mapping):
        return isinstance(live, Mapping) and all(
            key in live and _holds(value, live[key]) for key, value in desired.items()
        )
    if isinstance(desired, list | tuple):
        if not isinstance(live, list) or len(live) < len(desired):
            return False
        return all(_holds(item, _counterpart(item, index, live)) for index, item in enumerate(desired))
    return desired == live


def _counterpart(item: object, index: int, live: list[Any]) -> object:
    """Return the live item that a desired one stands for: by its merge key, else by position."""
    if isinstance(item, Mapping):
        for key in _MERGE_KEYS:
            if key in item:
                return next(
                    (other for other in live if isinstance(other, Mapping) and other.get(key) == item[key]),
                    None,
                )
    elif item in live:
        return item
    return live[index]


def _owned_paths(live: Mapping[str, Any], subresource: str) -> Iterator[tuple[str, ...]]:
    """Yield the paths of the leaves that we own, in the notation of managedFields."""
    for entry in live.get("metadata", {}).get("managedFields", ()):
        owner = entry.get("manager") == FIELD_MANAGER and entry.get("operation") == "Apply"
        if owner and entry.get("subresource", "") == subresource:
            yield from _leaves(entry.get("fieldsV1", {}), ())


def _leaves(fields: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    children = {key: value for key, value in fields.items() if key != "."}
    if not children:
        yield path
    for key, value in children.items():
        yield from _leaves(value, (*path, key))


def _present(path: tuple[str, ...], desired: object) -> bool:
    """Return whether the desired object has the field that a managedFields path names."""
    for step in path:
        marker, _, name = step.partition(":")
        if marker == "f":
            if not isinstance(desired, Mapping) or name not in desired:
                return False
            desired = desired[name]
        elif marker == "k":
            keys = json.loads(name)
            items = desired if isinstance(desired, list | tuple) else ()
            match = [
                item for item in items if all(item.get(key, value) == value for key, value in keys.items())
            ]
            if not match:
                return False
            desired = match[0]
        elif marker == "v":
            return isinstance(desired, list | tuple) and json.loads(name) in desired
    return True
