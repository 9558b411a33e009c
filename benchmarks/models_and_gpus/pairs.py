"""The pairs of model and GPU, and what others published for them: benchmarks/data/models-and-gpus.yaml."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

DATA = Path(__file__).parent.parent / "data" / "models-and-gpus.yaml"

Verdict = Literal["fits", "refused"]
Quantity = Literal[
    "verdict", "weights", "cacheTokens", "interTokenLatency", "timeToFirstToken", "requestLatency"
]


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FitConditions(_Data):
    """Engine settings of a source where they differ from the operator's defaults."""

    context: int | None = None
    memory_share: float | None = None
    max_batched_tokens: int | None = None
    cuda_graphs: bool = True
    """False: the version did not count them into its budget, or ran without them."""


class LoadConditions(_Data):
    """The load of a source: requests that run at once, and mean tokens."""

    batch: float = Field(ge=1)
    input: float
    output: float


class Figure(_Data):
    """What someone published for a pair."""

    quantity: Quantity
    value: float | Verdict
    fit: FitConditions | None = None
    load: LoadConditions | None = None
    measured: Literal["fitted", "heldOut"] | None = None
    """A row of the calibration's measurements; None: independent of them."""
    conditions: str
    date: str
    source: str = Field(pattern=r"^https://")
    miss: str | None = None
    """Why it is believed to be outside the tolerance."""


class Pair(_Data):
    """A model on some GPUs of one kind, what is asked for, and the verdict that is expected."""

    model: str
    weights: str
    accelerator: str
    count: int = 1
    context: int | None = None
    verdict: Verdict
    figures: tuple[Figure, ...]


class Document(_Data):
    """The file."""

    tolerances: Mapping[Quantity, float]
    """Relative; verdicts have none."""
    pairs: tuple[Pair, ...]


def load(path: Path = DATA) -> Document:
    """Read the pairs. YAML's dates become text."""
    document = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506 (strings only)
    return Document.model_validate(document)
