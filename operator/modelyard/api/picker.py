"""A service that chooses the replica of each request: an endpoint picker of the Gateway API inference extension."""

from typing import Annotated, Literal

from pydantic import Field

from modelyard.api.meta import ApiModel, DnsLabel


class EndpointPicker(ApiModel):
    """A Service that speaks the endpoint picker protocol (gRPC, without TLS), in the deployment's own namespace."""

    service: DnsLabel = Field(description="Name of the Service.")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(default=9002, description="Port of the Service.")
    failure_mode: Literal["FailClose", "FailOpen"] = Field(
        default="FailClose",
        description="What happens while it does not answer. FailClose: requests are answered 503. FailOpen: they go "
        "where loadBalancing sends them.",
    )
