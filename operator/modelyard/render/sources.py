"""Where a model's files come from."""

from dataclasses import dataclass

MODEL_MOUNT = "/models"
"""Where the claim of the model is mounted, read-only."""

ADAPTER_MOUNT = "/adapters"
"""Where the claims of LoRA adapters are mounted, one folder each, read-only."""


@dataclass(frozen=True, slots=True)
class HubSource:
    """`hf://organisation/repository[:tag][@revision]`."""

    repository: str
    """`organisation/repository`."""
    tag: str | None = None
    """Which file of a GGUF repository, by its quantisation (`Q4_K_M`)."""
    revision: str | None = None
    """A branch, tag or commit."""


@dataclass(frozen=True, slots=True)
class ClaimSource:
    """`pvc://claim[/folder...]`."""

    claim: str
    path: str = ""
    """Relative to the root of the volume."""


def parse_source(source: str) -> HubSource | ClaimSource:
    """Read a source that has the form of `SOURCE_PATTERN`."""
    scheme, _, rest = source.partition("://")
    if scheme == "pvc":
        claim, _, path = rest.partition("/")
        return ClaimSource(claim, path)
    rest, _, revision = rest.partition("@")
    repository, _, tag = rest.partition(":")
    return HubSource(repository, tag or None, revision or None)


def join_path(mount: str, path: str) -> str:
    """Return the absolute path of a file or folder below a mount."""
    return f"{mount}/{path}" if path else mount
