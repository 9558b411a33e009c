"""The catalogue of well-known models."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import yaml
from pydantic import ValidationError

from modelyard.api.modelprofile import ModelProfile
from modelyard.catalog.modelquantization import split_quantized_name


@dataclass(frozen=True, slots=True)
class CatalogModel:
    """A model whose numbers are known."""

    name: str
    repositories: tuple[str, ...]
    """Repositories of the hub that hold it, `organisation/repository`: instruction-tuned first, base after."""
    profile: ModelProfile
    source: str
    """URL that the numbers come from."""
    checked: date
    """Day on which they were compared with the source."""


@cache
def load_models() -> tuple[CatalogModel, ...]:
    """Return the models of the catalogue."""
    text = files("modelyard.catalog").joinpath("models.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(text)
    return tuple(
        CatalogModel(
            name=entry["name"],
            repositories=tuple(entry["repositories"]),
            profile=ModelProfile.model_validate(entry["profile"]),
            source=entry["source"],
            checked=document["checked"],
        )
        for entry in document["models"]
    )


def find_model(source: str) -> CatalogModel | None:
    """Return the catalogue's entry for a source, `hf://organisation/repository[:tag][@revision]` or the bare path.

    The rule, which ignores case: the repository's name, whatever the organisation, must be the name of a catalogued
    repository (with or without the prefix `Meta-`, or with the publisher and `_` before it, as some re-uploads have
    it), either as it is or followed by suffixes that only say how the weights are stored (`-FP8`, `-FP8-dynamic`,
    `-AWQ`, `-AWQ-INT4`, `-GPTQ-Int4`, `-GPTQ-Int8`, `-GGUF`, `-bnb-4bit`, `-quantized.w8a8`, `-quantized.w4a16`,
    `-NVFP4`, ...). The profile then has that quantisation; of a GGUF repository it is the source's tag, else
    what llama.cpp takes by default. Any other name, such as that of a fine-tune which contains a model's name, gives
    None: such a model must be read from its own configuration.
    """
    scheme, separator, rest = source.partition("://")
    if separator and scheme.lower() != "hf":
        return None
    path = (rest if separator else source).partition("@")[0]
    repository, _, tag = path.partition(":")
    organisation, slash, name = repository.lower().partition("/")
    if not (organisation and slash and name):
        return None
    model = _models_by_name().get(name)
    stored: list[str | None] = []
    while model is None:
        split = split_quantized_name(name)
        if split is None:
            return None
        name = split[0]
        stored.append(split[1])
        model = _models_by_name().get(name)
    if stored and stored[0] == "fp8" and organisation == "meta-llama":
        stored[0] = "fbgemm_fp8"  # The publisher's own format, which leaves attention in 16 bits.
    if tag:
        stored.insert(0, tag.upper())
    return _store_as(model, stored[0]) if stored else model


def _store_as(model: CatalogModel, quantization: str | None) -> CatalogModel | None:
    """Return the model with other weights; None where a tag is no name of a format."""
    try:
        profile = ModelProfile.model_validate({**model.profile.model_dump(), "quantization": quantization})
    except ValidationError:
        return None
    return CatalogModel(model.name, model.repositories, profile, model.source, model.checked)


@cache
def _models_by_name() -> Mapping[str, CatalogModel]:
    """Return the models by each lower-case name that a repository of theirs may have."""
    found: dict[str, CatalogModel] = {}
    for model in load_models():
        for repository in model.repositories:
            organisation, _, name = repository.lower().partition("/")
            bare = name.removeprefix("meta-")
            for alias in (bare, f"meta-{bare}", f"{organisation}_{bare}", f"{organisation}_{name}"):
                found.setdefault(alias, model)
    return MappingProxyType(found)
