"""Which object a command is about: its kind, name and namespace, in the forms that kubectl takes."""

from typing import Annotated

import typer

from modelyard.api.meta import split_key

KIND_NAMES = frozenset(
    {"llmdep", "llmdeps", "llmdeployment", "llmdeployments", "llmr", "llmroute", "llmroutes"}
)

Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        "-n",
        help="Namespace of the object, if NAME has none. Default: the context's, else default.",
    ),
]


def read_target(kind: str, name: str | None, namespace: str | None) -> tuple[str, str | None, str]:
    """Return kind in small letters, namespace and name of `KIND NAME`, `KIND NAMESPACE/NAME` or `KIND/NAME`.

    The namespace is None where nothing names it. Raises typer.BadParameter without a name, and where the namespace
    is named twice and differently.
    """
    if name is None:
        kind, _, name = kind.partition("/")
    if not name:
        words = f"{kind} NAME" if kind.lower() in KIND_NAMES else f"llmdep {kind or 'NAME'}"
        raise typer.BadParameter(f"the kind or the name is missing: write {words}", param_hint="name")
    if "/" in name:
        stated, name = split_key(name)
        if namespace not in (None, stated):
            raise typer.BadParameter(f"{stated}/{name} is not in namespace {namespace}", param_hint="-n")
        namespace = stated
    return kind.lower(), namespace, name
