"""Objects as YAML that reads well and is the same every time."""

from collections.abc import Iterable, Mapping
from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and never an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        """Repeat what occurs twice."""
        del data
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def sort_key(item: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return what objects are ordered by: kind, namespace, name."""
    metadata = item["metadata"]
    return item["kind"], metadata.get("namespace", ""), metadata["name"]


def dump(items: Iterable[Mapping[str, Any]]) -> str:
    """Return objects as a stream of YAML, ordered by kind, namespace and name."""
    return dump_all(sorted(items, key=sort_key))


def dump_all(documents: Iterable[Any]) -> str:
    """Return data as a stream of YAML, in its own order."""
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=110)
