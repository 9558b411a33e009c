"""How far engines stay from the accelerators' peak: the fitted coefficients of the step-time model."""

from collections.abc import Mapping
from functools import cache
from importlib import resources

import yaml
from pydantic import BaseModel, ConfigDict, Field


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Coefficients(_Data):
    """Times the work at peak (1: as fast as the hardware can), or seconds where a unit is given."""

    read: float = Field(ge=0)
    """Times the time to read weights."""
    cache: float = Field(ge=0)
    """Times the time to read the key-value cache."""
    compute: float = Field(ge=0)
    """Times the time to multiply, of decoded tokens."""
    layer: float = Field(ge=0)
    """Seconds for each layer and step."""
    exchange_layer: float = Field(ge=0)
    """Seconds for each layer and step that exchanges activations."""
    expert_layer: float = Field(ge=0)
    """Seconds for each layer of experts and step: routing, gathering."""
    step: float = Field(ge=0)
    """Seconds for each step."""
    sequence: float = Field(ge=0)
    """Seconds for each sequence and step."""
    prefill: float = Field(ge=0)
    """Times the time to multiply, of prompt tokens and their attention, in bf16."""
    prefill_quantized: float = Field(ge=0)
    """Times the time to multiply, of prompt tokens and their attention, with products in fewer bits."""
    exchange: float = Field(ge=0)
    """Times the time to exchange the activations of prompt tokens."""
    first_base: float = Field(ge=0)
    """Seconds before a request's first token, whatever the prompt."""
    first_prompt: float = Field(ge=0)
    """Times the prompt's prefill."""
    first_queue: float = Field(ge=0)
    """Times the prefill of each other running sequence."""
    first_step: float = Field(ge=0)
    """Decode steps before the first token."""
    first_sequence: float = Field(ge=0)
    """Seconds for each other running sequence."""


class Calibration(_Data):
    """Coefficients of one engine on one generation of accelerators."""

    engine: str
    generation: str
    """A key of `generations`; `any` for accelerators of none."""
    coefficients: Coefficients
    uncertainty: float = Field(gt=0)
    """Relative, one standard deviation, of the latency between tokens."""
    first_token_uncertainty: float = Field(gt=0)
    """Relative, one standard deviation, of the time to first token."""
    measured: bool
    """Fitted to measurements of this engine and generation; otherwise carried over from others."""
    source: str


MEASURED: Mapping[str, frozenset[str]] = {
    "SGLang": frozenset({"H100-SXM", "H200"}),
    "TensorRT-LLM": frozenset({"B200", "H100-SXM", "H200"}),
    "vLLM": frozenset({"B200", "H100-SXM", "H200"}),
}
"""Accelerators that each engine's coefficients were fitted on (benchmarks/data/step-time); of the GB200 there are three
rows, too few."""


class CalibrationTable(_Data):
    """The file."""

    source: str
    command: str
    date: str
    generations: Mapping[str, tuple[str, ...]]
    """Beginnings of accelerators' names, by generation."""
    calibrations: tuple[Calibration, ...]

    def generation(self, accelerator: str) -> str:
        """Name the generation of an accelerator, `any` if it is of none."""
        for generation, beginnings in self.generations.items():
            if accelerator.upper().startswith(beginnings):
                return generation
        return "any"

    def find(self, engine: str, accelerator: str) -> Calibration | None:
        """Return the engine's coefficients on the accelerator's generation, or those for any; None: no such engine."""
        generation = self.generation(accelerator)
        found = {entry.generation: entry for entry in self.calibrations if entry.engine == engine}
        entry, general = found.get(generation), found.get("any")
        if entry is None or general is None or not entry.measured or accelerator in MEASURED.get(engine, ()):
            return entry or general
        # A relative of what was measured, such as a slice of it, is as uncertain as any other.
        return entry.model_copy(
            update={
                "measured": False,
                "uncertainty": max(entry.uncertainty, general.uncertainty),
                "first_token_uncertainty": max(
                    entry.first_token_uncertainty, general.first_token_uncertainty
                ),
            }
        )


@cache
def calibration_table() -> CalibrationTable:
    """Read the table that is part of this package."""
    text = resources.files(__package__).joinpath("calibration.yaml").read_text(encoding="utf-8")
    return CalibrationTable.model_validate(yaml.safe_load(text))
