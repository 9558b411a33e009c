"""`LLMTenant`: somebody who calls the gateway, with API keys and the routes that they may use."""

from typing import Annotated

from pydantic import Field

from modelyard.api.meta import ApiModel, DnsLabel, DnsSubdomain, ObjectMeta, SecretKey, Status


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


class LLMTenantSpec(ApiModel):
    """How the tenant proves who it is, and what it may use."""

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
