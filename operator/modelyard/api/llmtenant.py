"""`LLMTenant`: somebody who calls the gateway, with API keys, the routes that they may use, and limits."""

from typing import Annotated, ClassVar

from pydantic import Field

from modelyard.api.meta import ApiModel, DnsLabel, DnsSubdomain, ObjectMeta, Rule, SecretKey, Status
from modelyard.api.quantities import PerMinute


class AllowedRoutes(ApiModel):
    """Routes of one namespace."""

    namespace: DnsLabel = Field(description="A namespace of LLMRoutes and LLMDeployments.")
    names: (
        Annotated[
            tuple[DnsSubdomain, ...],
            Field(min_length=1, max_length=64),
        ]
        | None
    ) = Field(
        default=None,
        description="LLMRoutes and LLMDeployments of that namespace; an LLMDeployment includes its adapters. "
        "Absent: all of the namespace.",
    )


class TenantLimits(ApiModel):
    """How much the tenant may ask for, over all gateways together."""

    requests_per_minute: PerMinute | None = Field(
        default=None, description="Requests for models that are answered. Absent: no limit."
    )
    tokens_per_minute: PerMinute | None = Field(
        default=None,
        description="Tokens of prompts and answers, counted when an answer ends; what exceeds the limit by then is "
        "paid off before the next request is answered. Absent: no limit.",
    )

    RULES: ClassVar[tuple[Rule["TenantLimits"], ...]] = (
        Rule(
            name="one-at-least",
            cel="has(self.requestsPerMinute) || has(self.tokensPerMinute)",
            message="limits needs requestsPerMinute, tokensPerMinute or both: leave it out for a tenant without limits",
            holds=lambda limits: (
                limits.requests_per_minute is not None or limits.tokens_per_minute is not None
            ),
        ),
    )


class LLMTenantSpec(ApiModel):
    """How the tenant proves who it is, what it may use, and how much of it."""

    keys: Annotated[
        tuple[SecretKey, ...],
        Field(
            min_length=1,
            max_length=8,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name", "key"],
            },
        ),
    ] = Field(
        description="API keys, in Secrets of the tenant's own namespace. Each works by itself: to change one, add the "
        "new one, move the clients, and remove the old one."
    )
    allow: (
        Annotated[
            tuple[AllowedRoutes, ...],
            Field(
                min_length=1,
                max_length=64,
                json_schema_extra={
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["namespace"],
                },
            ),
        ]
        | None
    ) = Field(
        default=None, description="The routes that the tenant may use. Absent: all, those to come included."
    )
    limits: TenantLimits | None = Field(
        default=None, description="How much it may ask for per minute. Absent: no limits."
    )


class LLMTenantStatus(Status):
    """What is."""


class LLMTenant(ApiModel):
    """Somebody who calls the gateway, with API keys and the routes that they may use."""

    metadata: ObjectMeta
    spec: LLMTenantSpec
    status: LLMTenantStatus = Field(default_factory=LLMTenantStatus)

    @property
    def name(self) -> str:
        """The name that rules, budgets and counters call it by."""
        return self.metadata.name
