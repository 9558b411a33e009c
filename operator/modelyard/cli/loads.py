"""Recorded loads and own prices of APIs, from files."""

import csv
import io
from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.meta import ApiModel
from modelyard.api.quantities import Price
from modelyard.catalog.api_prices import ApiPrice
from modelyard.cli.inventory import split_namespace
from modelyard.cli.manifests import InputError, load_yaml, read_text
from modelyard.core.choice import expected_shape
from modelyard.core.load import LoadShape
from modelyard.core.report.compare import OwnPrice
from modelyard.core.report.settle import StatedLoad

_Key = Annotated[str, Field(min_length=1, max_length=317)]
_Text = Annotated[str, Field(min_length=1, max_length=128)]


class _Row(ApiModel):
    """A mistyped column is refused: nobody else would tell."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=False, frozen=True, extra="forbid")


Row = TypeVar("Row", bound=_Row)


class LoadRow(_Row):
    """The recorded load of one deployment."""

    deployment: _Key
    requests_per_minute: Annotated[float, Field(ge=0, le=10_000_000, allow_inf_nan=False)]
    input_tokens: Annotated[float, Field(ge=1, le=10_000_000, allow_inf_nan=False)] | None = None
    """Of the mean prompt. Default: what the spec states."""
    output_tokens: Annotated[float, Field(ge=1, le=1_000_000, allow_inf_nan=False)] | None = None


class PriceRow(_Row):
    """What an API costs this user."""

    provider: _Text
    model: _Text
    input_per_million: Price
    output_per_million: Price
    deployment: _Key | None = None
    """The only deployment to compare with. Default: all."""
    source: _Text
    date: date


def read_loads(path: Path, namespace: str) -> dict[str, LoadRow]:
    """Return the rows of a YAML, JSON or CSV file by `namespace/name`. Raises InputError with a line for people."""
    found: dict[str, LoadRow] = {}
    for row in _read(LoadRow, path):
        key = split_namespace(row.deployment, namespace)
        if key in found:
            raise InputError(
                f"{path}: deployment {key} has two rows: give the one load that is to be planned for"
            )
        found[key] = row
    return found


def read_prices(path: Path, namespace: str) -> tuple[OwnPrice, ...]:
    """Return the prices of a YAML, JSON or CSV file. Raises InputError with a line for people."""
    return tuple(
        OwnPrice(
            ApiPrice(
                provider=row.provider,
                model=row.model,
                input_per_million=Decimal(row.input_per_million),
                output_per_million=Decimal(row.output_per_million),
                cached_per_million=None,
                source=row.source,
                date=row.date,
                open_model=None,
            ),
            None if row.deployment is None else split_namespace(row.deployment, namespace),
        )
        for row in _read(PriceRow, path)
    )


def state_recorded(deployment: LLMDeployment, row: LoadRow) -> StatedLoad:
    """Return the recorded load of a deployment. Where it says nothing of tokens, the spec or the default does."""
    expected = expected_shape(deployment)
    shape = LoadShape(
        input_tokens=row.input_tokens or expected.input_tokens,
        output_tokens=row.output_tokens or expected.output_tokens,
    )
    return StatedLoad(shape, row.requests_per_minute, "File")


def _read(model: type[Row], path: Path) -> list[Row]:
    try:
        return _parse(model, _read_rows(path))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _read_rows(path: Path) -> list[Mapping[str, Any]]:
    text = read_text(path)
    if path.suffix == ".csv":
        rows: list[Any] = [
            {name: value for name, value in row.items() if value not in (None, "")}
            for row in csv.DictReader(io.StringIO(text))
        ]
    else:
        documents = load_yaml(text)
        rows = documents[0] if len(documents) == 1 and isinstance(documents[0], list) else []
        if not rows:
            raise InputError("a list of rows is wanted")
    if not all(isinstance(row, Mapping) and all(isinstance(name, str) for name in row) for row in rows):
        raise InputError("every row is a mapping of columns to values")
    return rows


def _parse(model: type[Row], rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    found = []
    for number, row in enumerate(rows, start=1):
        try:
            found.append(model.model_validate(dict(row)))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InputError(f"row {number}: {where}: {first['msg']}") from error
    return found
