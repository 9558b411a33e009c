"""Which cluster a command reads, and which namespace of it, as kubectl would find them."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from modelyard.cli.manifests import InputError, load_yaml, read_text

DEFAULT_NAMESPACE = "default"
"""Where the context names none: kubectl's, too."""

Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        help="Default: KUBECONFIG, ~/.kube/config, or the one around the process.",
        exists=True,
        dir_okay=False,
    ),
]
Context = Annotated[
    str | None, typer.Option(help="Context of the kubeconfig. Default: its current one.", metavar="NAME")
]


@dataclass(frozen=True, slots=True)
class Access:
    """A cluster, and the namespace that is meant where none is named."""

    files: tuple[Path, ...] = ()
    """What describes it together; empty: it is the one around the process."""
    context: str | None = None
    namespace: str = DEFAULT_NAMESPACE


def find_access(kubeconfig: Path | None, context: str | None) -> Access:
    """Return what the options mean, or without them the environment.

    Of several files in KUBECONFIG the first that says something is right, and those that do not exist are passed over.
    Raises InputError where it is not known which cluster, and for a file that is no kubeconfig.
    """
    files = (kubeconfig,) if kubeconfig is not None else find_kubeconfig()
    if not files:
        if "KUBERNETES_SERVICE_HOST" not in os.environ:
            raise InputError("no kubeconfig: give --kubeconfig, or set KUBECONFIG")
        if context is not None:
            raise InputError(f"--context {context}: there is no kubeconfig that could have it")
        return Access()
    contents = [_read(path) for path in files]
    names = " and ".join(str(path) for path in files)
    wanted = context or next((text for item in contents if (text := item.get("current-context"))), None)
    if wanted is None:
        raise InputError(f"{names}: no current-context is set: give --context{_choice(contents)}")
    if wanted not in (known := dict(_contexts(reversed(contents)))):
        raise InputError(f"{names}: there is no context {wanted}{_choice(contents)}")
    return Access(files, wanted, known[wanted].get("namespace") or DEFAULT_NAMESPACE)


def find_kubeconfig() -> tuple[Path, ...]:
    """Return the files that kubectl would use; none as inside a cluster.

    Raises InputError where KUBECONFIG names files and none of them exists: another cluster is not what was meant.
    """
    if stated := [Path(part) for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]:
        if found := tuple(path for path in stated if path.is_file()):
            return found
        raise InputError(f"KUBECONFIG names no file that exists: {os.environ['KUBECONFIG']}")
    usual = Path("~/.kube/config").expanduser()
    return (usual,) if usual.is_file() else ()


def _read(path: Path) -> Mapping[str, Any]:
    """Return what is in a file. Raises InputError, in one line, for one that is no kubeconfig."""
    try:
        documents = load_yaml(read_text(path))
    except InputError as error:
        raise InputError(f"{path}: no kubeconfig: {error}") from error
    content = documents[0] if len(documents) == 1 else None
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: no kubeconfig")
    parts = {name: content.get(name) or [] for name in ("clusters", "contexts", "users")}
    wrong = [
        name
        for name, items in parts.items()
        if not isinstance(items, list)
        or not all(isinstance(item, Mapping) and isinstance(item.get("name"), str) for item in items)
    ]
    if wrong:
        raise InputError(f"{path}: no kubeconfig: {wrong[0]} is no list of things with names")
    return content


def _contexts(
    contents: Iterator[Mapping[str, Any]] | Sequence[Mapping[str, Any]],
) -> Iterator[tuple[str, Any]]:
    """Yield name and fields of every context."""
    for content in contents:
        for item in content.get("contexts") or ():
            fields = item.get("context")
            yield item["name"], fields if isinstance(fields, Mapping) else {}


def _choice(contents: Sequence[Mapping[str, Any]]) -> str:
    names = sorted({name for name, _ in _contexts(contents)})
    return f": it has {', '.join(names)}" if names else ": it has none"
