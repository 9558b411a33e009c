"""Engine versions and the images that run them.

A user names an engine and perhaps a version; which image that is comes from the catalogue and from the operator's
configuration, never from a spec.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from modelyard.api.engines import EngineName
from modelyard.api.meta import Refusal

AcceleratorKind = str
"""Which build of an engine runs: `cuda`, `rocm`, `cpu`, or the vendor's domain of another extended resource."""

_KIND_BY_VENDOR: Mapping[str, AcceleratorKind] = {"nvidia.com": "cuda", "amd.com": "rocm"}
"""Domain of the extended resource that a vendor's device plugin registers (`nvidia.com/gpu`, `amd.com/gpu`)."""

_DEFAULT_REGISTRY = "docker.io"
"""The registry of an image reference that names none."""


@dataclass(frozen=True, slots=True)
class Image:
    """A container image to run."""

    reference: str
    version: str
    """The engine version inside."""


@dataclass(frozen=True, slots=True)
class EngineVersion:
    """One version of an engine, with its image for each kind of accelerator."""

    version: str
    images: Mapping[AcceleratorKind, str]


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """The platform team's choice of images."""

    mirrors: Mapping[str, str] = field(default_factory=dict)
    """Registry to the prefix that replaces it, such as `docker.io` to `registry.example/dockerhub`."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """Image reference, as in the catalogue, to the `sha256:...` digest that it is pinned to."""
    versions: Mapping[EngineName, tuple[EngineVersion, ...]] = field(default_factory=dict)
    """Versions that replace the catalogue's for an engine, newest first."""


@cache
def load_engines() -> Mapping[str, tuple[EngineVersion, ...]]:
    """Return the versions of each engine in the catalogue, newest first."""
    text = files("modelyard.catalog").joinpath("engines.yaml").read_text(encoding="utf-8")
    engines: dict[str, dict[str, Any]] = yaml.safe_load(text)["engines"]
    return {
        name: tuple(EngineVersion(item["version"], item["images"]) for item in entry["versions"])
        for name, entry in engines.items()
    }


def accelerator_kind(resource_name: str | None) -> AcceleratorKind:
    """Return which build of an engine an accelerator with this extended resource needs (None: CPU only)."""
    if resource_name is None:
        return "cpu"
    vendor = resource_name.partition("/")[0]
    return _KIND_BY_VENDOR.get(vendor, vendor)


def resolve_image(
    engine: EngineName, version: str | None, kind: AcceleratorKind, settings: ImageSettings
) -> Image | Refusal:
    """Return the image of an engine version (None: the newest) for a kind of accelerator."""
    versions = settings.versions.get(engine) or load_engines()[engine]
    found = next((item for item in versions if version in (None, item.version)), None)
    if found is None:
        known = ", ".join(item.version for item in versions)
        return Refusal(
            "UnknownEngineVersion",
            f"engine.version {version!r} of {engine} is not offered; choose from {known}",
        )
    reference = found.images.get(kind)
    if reference is None:
        kinds = ", ".join(sorted(found.images))
        return Refusal(
            "NoEngineImage",
            f"engine {engine} {found.version} has no image for {kind} accelerators, only for {kinds}: "
            "choose another engine.name or another class in placement.accelerators",
        )
    return Image(_pin(_mirror(reference, settings.mirrors), settings.digests.get(reference)), found.version)


def _mirror(reference: str, mirrors: Mapping[str, str]) -> str:
    """Replace the registry. As Docker does, a first part without dot, colon or `localhost` is no registry."""
    first, slash, rest = reference.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        registry, path = first, rest
    else:
        registry, path = _DEFAULT_REGISTRY, reference
    prefix = mirrors.get(registry)
    return f"{prefix.rstrip('/')}/{path}" if prefix else reference


def _pin(reference: str, digest: str | None) -> str:
    return f"{reference}@{digest}" if digest else reference
