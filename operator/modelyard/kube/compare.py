"""Whether an object already is what an apply would make it: desired and live are compared before any write.

Two questions, both needed: does the live object hold every desired value, and do we own no field that is no longer
desired? The second is answered from `metadata.managedFields`, where server-side apply keeps what we set.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from modelyard.api.meta import FIELD_MANAGER

_MERGE_KEYS = frozenset({"name", "containerPort", "mountPath", "uid", "type"})
"""Fields that identify an item of those lists that other managers may add to (list map keys of the Kubernetes API)."""


def is_applied(desired: Mapping[str, Any], live: Mapping[str, Any], subresource: str = "") -> bool:
    """Return whether applying `desired` would change nothing."""
    if not _holds(desired, live):
        return False
    return all(_stands(path, desired, live) for path in _owned_paths(live, subresource))


def owns(live: Mapping[str, Any], *path: str) -> bool:
    """Return whether a field of the object, such as `spec`, `replicas`, is among those that we applied."""
    wanted = tuple(f"f:{name}" for name in path)
    return any(owned[: len(wanted)] == wanted for owned in _owned_paths(live, ""))


def _holds(desired: object, live: object) -> bool:
    """Return whether every desired value stands in the live one."""
    if isinstance(desired, Mapping):
        return isinstance(live, Mapping) and all(
            key in live and _holds(value, live[key]) for key, value in desired.items()
        )
    if isinstance(desired, list | tuple):
        return isinstance(live, list) and _holds_items(desired, live)
    return desired == live


def _holds_items(desired: list[Any] | tuple[Any, ...], live: list[Any]) -> bool:
    """Return whether every desired item stands in the live list, and nothing else in a list that is one value."""
    shared = all(isinstance(item, Mapping) and _MERGE_KEYS & item.keys() for item in desired)
    if len(live) < len(desired) or (len(live) > len(desired) and not shared):
        return False
    return all(
        _holds(item, live[index]) or any(_holds(item, other) for other in live)
        for index, item in enumerate(desired)
    )


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


_MISSING: Final = object()


def _stands(path: tuple[str, ...], desired: object, live: object) -> bool:
    """Return whether the desired object has the field that a managedFields path names, and nothing else is in it.

    A map that is owned as one value, such as a selector of labels, is replaced as a whole: an entry that is not wanted
    any more goes with the next apply. Of a map of which every entry has its owner, each is a path of its own.
    """
    wanted = _find(path, desired)
    if isinstance(wanted, Mapping) and wanted and all(isinstance(value, str) for value in wanted.values()):
        return bool(wanted == _find(path, live))
    return wanted is not _MISSING


def _find(path: tuple[str, ...], body: object) -> object:
    """Return what a managedFields path leads to."""
    for step in path:
        marker, _, name = step.partition(":")
        if marker == "f":
            if not isinstance(body, Mapping) or name not in body:
                return _MISSING
            body = body[name]
        elif marker == "k":
            keys = json.loads(name)
            items = body if isinstance(body, list | tuple) else ()
            match = [
                item for item in items if all(item.get(key, value) == value for key, value in keys.items())
            ]
            if not match:
                return _MISSING
            body = match[0]
        elif marker == "v":
            held = isinstance(body, list | tuple) and json.loads(name) in body
            return True if held else _MISSING
    return body
