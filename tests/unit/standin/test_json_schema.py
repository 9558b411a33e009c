"""Values for schemas: Pydantic, which wrote the schemas, accepts what comes out."""

from datetime import date, datetime
from enum import Enum
from typing import Annotated, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field

from dev.standin.json_schema import example


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Leaf(BaseModel):
    """Every kind of scalar, with bounds that zero and the usual word miss."""

    colour: Colour
    kind: Literal["leaf"]
    count: Annotated[int, Field(gt=3, le=4)]
    even: Annotated[int, Field(ge=7, multiple_of=2)]
    below: Annotated[int, Field(lt=-5)]
    share: Annotated[float, Field(gt=0.0, lt=0.5)]
    long: Annotated[str, Field(min_length=11)]
    short: Annotated[str, Field(max_length=2)]
    day: date
    moment: datetime
    key: UUID
    maybe: int | None
    flag: bool
    nothing: None
    anything: object


class Tree(BaseModel):
    """Contains itself in every way that has an end, as OpenAI's strict mode wants it: all fields required."""

    model_config = ConfigDict(extra="forbid")

    leaf: Leaf
    parent: "Tree | None"
    children: list["Tree"]
    several: Annotated[list[int], Field(min_length=2)]
    few: Annotated[list[int], Field(max_length=0)]


class Chain(BaseModel):
    next: "Chain | None" = None
    name: str = "unnamed"


@pytest.mark.parametrize("model", [Leaf, Tree, Chain])
def test_what_the_schema_of_a_model_gives_is_one(model: type[BaseModel]) -> None:
    model.model_validate(example(model.model_json_schema()))


def test_lists_are_not_empty_and_parts_are_joined() -> None:
    parts = [{"properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"$ref": "#/$defs/b"}]
    schema = {
        "type": "array",
        "items": {"allOf": parts},
        "$defs": {"b": {"type": "object", "properties": {"b": {"const": 2}}, "required": ["b"]}},
    }
    assert example(schema) == [{"a": 0, "b": 2}]
    assert example({"oneOf": [{"type": ["boolean", "null"]}, {"type": "null"}]}) is True


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "string", "pattern": "^a+$"}, "pattern"),
        ({"type": "string", "format": "hostname"}, "format"),
        ({"type": "integer", "minimum": 1, "maximum": 0}, "minimum"),
        ({"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, "minimum"),
        ({"type": "tuple"}, "type"),
        ({"type": "object", "properties": {}, "required": ["a"]}, "required"),
        ({"$ref": "#/$defs/missing"}, r"\$ref"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "nested"),
        ({"type": "object", "properties": ["a"]}, "schema"),
        ({"type": "array", "minItems": "1"}, "schema"),
        (False, "schema"),
        ([], "schema"),
    ],
)
def test_what_has_no_value_is_refused_by_name(schema: object, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        example(schema)
