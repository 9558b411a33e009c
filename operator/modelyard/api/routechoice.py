"""What the status of an LLMRoute says of where its requests go under policy LowestCost."""

from typing import Annotated

from pydantic import Field, StringConstraints

from modelyard.api.meta import ApiModel
from modelyard.api.quantities import Numbers, Price, Rate

TargetKey = Annotated[str, StringConstraints(max_length=512)]
"""`namespace/name` of an LLMDeployment, or `provider:` with the provider's name, a slash and its model."""
Code = Annotated[str, StringConstraints(max_length=64)]
Sentence = Annotated[str, StringConstraints(max_length=1024)]


class TargetCost(ApiModel):
    """What a target would cost at the load that is expected, while other routes stay where they are."""

    target: TargetKey
    per_hour: Price | None = Field(
        default=None, description="US dollars. Of a deployment: what could be saved."
    )
    per_million_tokens: Price | None = Field(
        default=None, description="US dollars, over all tokens of the mean request. Absent without load."
    )
    replicas: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="Replicas of the deployment that the load would need, other routes' included.",
    )
    reason: Code | None = Field(default=None, description="Why it cannot be chosen. Absent: it can.")
    message: Sentence | None = None


class Crossing(ApiModel):
    """A load at which the cheapest target changes."""

    requests_per_minute: Rate
    before: TargetKey = Field(description="Cheapest up to it.")
    after: TargetKey = Field(description="Cheapest beyond it.")


class ChoiceStatus(ApiModel):
    """Where requests go under policy LowestCost, and what that was decided from."""

    target: TargetKey = Field(description="Empty: none may be used.")
    since: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    reason: Code
    message: Sentence = ""
    break_even_per_minute: Rate | None = Field(
        default=None, description="Requests per minute of the first crossing."
    )
    numbers: Numbers | None = Field(
        default=None, description="Load and mean request that it was decided from."
    )
    costs: Annotated[
        tuple[TargetCost, ...], Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = ()
    crossings: Annotated[
        tuple[Crossing, ...], Field(max_length=64, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = ()
