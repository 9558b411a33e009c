"""Reading manifests from files, folders and standard input: what `plan` and `validate` look at.

The files may come from somebody who is not trusted (a pull request), so what is read is bounded.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from modelyard.api.crd import KINDS
from modelyard.api.meta import GROUP, ApiModel
from modelyard.api.validation import read_manifest
from modelyard.core.report.model import Problem

STDIN: Final = Path("-")
STDIN_NAME: Final = "standard input"
INVALID_FOLDER: Final = "invalid"
"""Folders of this name hold manifests that are meant to fail: they are read only if they are named themselves."""

LARGEST_FILE: Final = 4 * 1024 * 1024
"""Bytes of one file. etcd takes no object above 1.5 MiB, and a fleet of hundreds of deployments is well below."""
MOST_VALUES: Final = 200_000
"""Values of one file with all its aliases written out. The API server refuses aliases that blow up, too
(CVE-2019-11253)."""
MOST_FILES: Final = 10_000

_SUFFIXES: Final = (".yaml", ".yml", ".json")
_TEMPLATE: Final = "{{"
_TEMPLATE_MESSAGE: Final = (
    "looks like a template ({{ }}): render it first, with `helm template` or `kustomize build`, and give "
    "the result"
)


class InputError(ValueError):
    """A file of the user's is not as it should be. The message is one line."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, as kubectl does; YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag != "tag:yaml.org,2002:merge":
                if key_node.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key_node.value!r} stands there twice", key_node.start_mark
                    )
                seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)


@dataclass(frozen=True, slots=True)
class Manifest:
    """An object of ours that the API server would take."""

    file: str
    object: ApiModel


@dataclass(slots=True)
class Reading:
    """What was found in the files."""

    manifests: list[Manifest] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    checked: int = 0
    """Documents of our group, good or bad."""

    @property
    def invalid(self) -> bool:
        """Whether the API server would refuse something."""
        return any(problem.severity == "Error" for problem in self.problems)


def read_files(paths: Iterable[Path], namespace: str = "default") -> Reading:
    """Read and check every document. `-` is standard input; folders are read with all folders inside them.

    `namespace` is where objects go that name none.
    """
    reading = Reading()
    for path in _list_files(paths, reading):
        name = STDIN_NAME if path == STDIN else str(path)
        documents = _read_documents(path, name, reading)
        for document in documents:
            _take(document, name, reading)
    _refuse_duplicates(reading, namespace)
    return reading


def load_yaml(text: str) -> list[Any]:
    """Return the documents of a text, empty ones left out.

    Raises InputError, in one line, for what is no YAML, for repeated keys and for documents that are too large.
    """
    try:
        documents = [item for item in yaml.load_all(text, _Loader) if item is not None]
    except yaml.YAMLError as error:
        # One line for each problem: the output is read by pipelines.
        raise InputError(f"not YAML: {' '.join(str(error).split())}") from error
    except (RecursionError, ValueError, TypeError) as error:
        raise InputError(f"not YAML that can be read: {' '.join(str(error).split())[:200]}") from error
    if _count_values(documents, {}, set()) > MOST_VALUES:
        raise InputError(f"more than {MOST_VALUES} values in one file, its aliases written out")
    return documents


def read_text(path: Path) -> str:
    """Return the text of a file, or of standard input.

    Raises InputError for a file that cannot be read, is too large or not UTF-8.
    """
    try:
        if path == STDIN:
            raw = sys.stdin.buffer.read(LARGEST_FILE + 1)
        else:
            with path.open("rb") as file:
                raw = file.read(LARGEST_FILE + 1)
        if len(raw) > LARGEST_FILE:
            raise InputError(f"larger than {LARGEST_FILE} bytes")
        return raw.decode("utf-8")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError("not UTF-8") from error


def _list_files(paths: Iterable[Path], reading: Reading) -> Iterator[Path]:
    """Yield each file once, those of a folder in the order of their names."""
    seen: set[Path] = set()
    for path in paths:
        if path == STDIN or not path.is_dir():
            found: Iterable[Path] = (path,)
        else:
            found = _walk(path, reading)
        for file in found:
            place = file if file == STDIN else file.resolve()
            if place in seen:
                continue
            if len(seen) == MOST_FILES:
                reading.problems.append(Problem(file=str(path), message=f"more than {MOST_FILES} files"))
                return
            seen.add(place)
            yield file


def _walk(folder: Path, reading: Reading) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            if path.name == INVALID_FOLDER:
                reading.notes.append(
                    f"{path}: skipped: it holds manifests that are meant to fail; name it to check them"
                )
            elif not path.name.startswith("."):
                yield from _walk(path, reading)
        elif path.suffix in _SUFFIXES and path.is_file():
            yield path


def _read_documents(path: Path, name: str, reading: Reading) -> list[Any]:
    text = ""
    try:
        text = read_text(path)
        return load_yaml(text)
    except InputError as error:
        message = _TEMPLATE_MESSAGE if _TEMPLATE in text else str(error)
        reading.problems.append(Problem(file=name, message=message))
        return []


def _take(document: object, file: str, reading: Reading) -> None:
    """Check one document; a list is unfolded, and a document of others skipped with a note."""
    items = document.get("items") if isinstance(document, Mapping) else None
    if (
        isinstance(document, Mapping)
        and isinstance(items, list)
        and str(document.get("kind")).endswith("List")
    ):
        for item in items:
            _take(item, file, reading)
        return
    if not isinstance(document, Mapping) or not str(document.get("apiVersion", "")).startswith(f"{GROUP}/"):
        kind = document.get("kind", "document") if isinstance(document, Mapping) else "document"
        reading.notes.append(f"{file}: {str(kind)[:64]} skipped: not of {GROUP}")
        return
    reading.checked += 1
    found, problems = read_manifest(document)
    if found is None and _holds_template(document):
        reading.problems.append(Problem(file=file, object=_title(document), message=_TEMPLATE_MESSAGE))
        return
    reading.problems += [
        Problem(
            file=file,
            object=_title(document),
            field=problem.field,
            message=problem.message,
            severity=problem.severity,
        )
        for problem in problems
    ]
    if found is not None:
        reading.manifests.append(Manifest(file, found))


def _title(document: Mapping[str, Any]) -> str:
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    return f"{str(document.get('kind'))[:64]} {str(name or '')[:253]}".strip()


def _holds_template(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(_holds_template(part) for pair in value.items() for part in pair)
    if isinstance(value, list):
        return any(_holds_template(item) for item in value)
    return isinstance(value, str) and _TEMPLATE in value


def _refuse_duplicates(reading: Reading, default: str) -> None:
    """Refuse an object that stands in the files more than once: which of them counts would be chance."""
    keys = [_identity(manifest.object, default) for manifest in reading.manifests]
    counts = Counter(keys)
    first: dict[tuple[str, str, str], str] = {}
    kept = []
    for manifest, key in zip(reading.manifests, keys, strict=True):
        kind, namespace, name = key
        if counts[key] > 1 and key in first:
            place = f"{namespace}/{name}" if namespace else name
            message = f"{place} stands in the files more than once; first in {first[key]}"
            reading.problems.append(Problem(file=manifest.file, object=f"{kind} {name}", message=message))
            continue
        first[key] = manifest.file
        kept.append(manifest)
    reading.manifests = kept


def _identity(item: ApiModel, default: str) -> tuple[str, str, str]:
    kind = KINDS[type(item).__name__]
    metadata = getattr(item, "metadata")  # noqa: B009 every kind has one, their common base does not
    return kind.name, (metadata.namespace or default) if kind.namespaced else "", metadata.name


def _count_values(value: object, known: dict[int, int], open_values: set[int]) -> int:
    """Return the number of values in a document, each alias counted as what it stands for.

    Raises InputError for a value that holds itself.
    """
    if not isinstance(value, dict | list):
        return 1
    identity = id(value)
    if identity in known:
        return known[identity]
    if identity in open_values:
        raise InputError("an alias stands for something that holds it")
    open_values.add(identity)
    parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
    total = 1 + sum(_count_values(part, known, open_values) for part in parts)
    open_values.discard(identity)
    known[identity] = total
    return total
