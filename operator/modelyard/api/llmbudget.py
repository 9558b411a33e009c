"""`LLMBudget`: how much money may be spent in a period of the calendar, on what, and what happens when it runs out."""

from decimal import Decimal
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, StringConstraints

from modelyard.api.meta import ApiModel, DnsLabel, DnsSubdomain, ObjectMeta, Rule, Status
from modelyard.api.quantities import Money, Share
from modelyard.api.scaling import TimeZoneName, known_time_zones

ObjectKey = Annotated[
    str,
    StringConstraints(
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        max_length=317,
    ),
]
"""`namespace/name`."""

SizeAction = Literal["LowerMax", "Sleep"]
SIZE_ACTIONS: Final = ("LowerMax", "Sleep")
"""Soft actions that change how deployments are sized, for everybody who uses them."""


class BudgetScope(ApiModel):
    """What counts, and what the budget acts on. Each field narrows it; absent fields leave everything in."""

    tenants: Annotated[tuple[DnsSubdomain, ...], Field(min_length=1, max_length=64)] | None = Field(
        default=None, description="LLMTenants. Absent: all, and requests without a tenant."
    )
    namespaces: Annotated[tuple[DnsLabel, ...], Field(min_length=1, max_length=64)] | None = Field(
        default=None, description="Namespaces of the LLMRoutes and LLMDeployments that requests name."
    )
    routes: Annotated[tuple[ObjectKey, ...], Field(min_length=1, max_length=64)] | None = Field(
        default=None, description="LLMRoutes, as namespace/name."
    )
    deployments: Annotated[tuple[ObjectKey, ...], Field(min_length=1, max_length=64)] | None = Field(
        default=None,
        description="LLMDeployments that answer, as namespace/name. With providers: what either of them names.",
    )
    providers: Annotated[tuple[DnsSubdomain, ...], Field(min_length=1, max_length=64)] | None = Field(
        default=None, description="LLMProviders that answer."
    )


class SoftLimit(ApiModel):
    """What lowers the cost before the amount is spent."""

    at: Share = Field(description="Share of the amount from which on it acts.")
    action: Literal["PreferCheaper", "LowerMax", "Sleep"] = Field(
        description="PreferCheaper: routes with several allowed targets try the cheapest first. LowerMax: deployments "
        "grow no further. Sleep: deployments with min 0 sleep as soon as they are idle."
    )
    max_share: Share | None = Field(
        default=None,
        description="With LowerMax: scaling.max is lowered to this share of it. Absent: to what is running.",
    )

    RULES: ClassVar[tuple[Rule["SoftLimit"], ...]] = (
        Rule(
            name="at-above-zero",
            cel="double(self.at) > 0.0",
            message="at must be above 0: a share of the amount, such as 0.8",
            holds=lambda soft: Decimal(soft.at) > 0,
            field_path=".at",
        ),
        Rule(
            name="max-share-with-lower-max",
            cel="!has(self.maxShare) || (self.action == 'LowerMax' && double(self.maxShare) > 0.0)",
            message="maxShare is only used with action LowerMax, and must be above 0",
            holds=lambda soft: (
                soft.max_share is None or (soft.action == "LowerMax" and Decimal(soft.max_share) > 0)
            ),
            field_path=".maxShare",
        ),
    )


class HardLimit(ApiModel):
    """What happens when the amount is spent."""

    action: Literal["Refuse", "Warn"] = Field(
        default="Refuse",
        description="Refuse: requests are answered 429 until the period ends. Warn: only the status says so.",
    )


def _acts_on_sizes(spec: "LLMBudgetSpec") -> bool:
    return spec.soft is not None and spec.soft.action in SIZE_ACTIONS


class LLMBudgetSpec(ApiModel):
    """How much, for how long, for what."""

    amount: Money = Field(description="US dollars for one period.")
    period: Literal["Day", "Week", "Month"] = Field(
        description="Of the calendar: from midnight, from Monday, from the first of the month."
    )
    time_zone: TimeZoneName = Field(
        default="Etc/UTC", description="IANA time zone whose clocks the period follows."
    )
    scope: BudgetScope = Field(default_factory=BudgetScope)
    soft: SoftLimit | None = None
    hard: HardLimit = Field(default_factory=HardLimit)

    RULES: ClassVar[tuple[Rule["LLMBudgetSpec"], ...]] = (
        Rule(
            name="amount-above-zero",
            cel="double(self.amount) > 0.0",
            message="amount must be above 0",
            holds=lambda spec: Decimal(spec.amount) > 0,
            field_path=".amount",
        ),
        Rule(
            name="time-zone-is-known",
            # An unknown name is an error of the expression, and so a refusal, which has no fieldPath.
            cel="!(self.timeZone in ['Local', 'localtime']) "
            "&& timestamp('2026-01-01T00:00:00Z').getFullYear(self.timeZone) > 0",
            message="timeZone must be a name of the IANA time zone database, as in Europe/Berlin",
            holds=lambda spec: spec.time_zone in known_time_zones(),
        ),
        Rule(
            name="size-actions-need-deployments",
            cel="!has(self.soft) || !(self.soft.action in ['LowerMax', 'Sleep']) || (!has(self.scope.tenants) "
            "&& !has(self.scope.routes) && (!has(self.scope.providers) || has(self.scope.deployments)))",
            message="actions LowerMax and Sleep change deployments for everybody who uses them: narrow scope by "
            "namespaces or deployments only",
            holds=lambda spec: (
                not _acts_on_sizes(spec)
                or (
                    spec.scope.tenants is None
                    and spec.scope.routes is None
                    and (spec.scope.providers is None or spec.scope.deployments is not None)
                )
            ),
            field_path=".scope",
        ),
    )


TimeText = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""RFC 3339."""


class LLMBudgetStatus(Status):
    """What is."""

    period_begin: TimeText | None = None
    period_end: TimeText | None = None
    """When it resets."""
    spent: Money | None = None
    """US dollars since the period began; absent while that is not known."""
    share: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}(\.[0-9]{1,4})?$", max_length=14)] | None = (
        None
    )
    """Of the amount."""
    runs_out: (
        Annotated[str, StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", max_length=10)] | None
    ) = None
    """Day on which the amount is spent if money goes on as it does now; absent if the period ends before."""


class LLMBudget(ApiModel):
    """How much money may be spent in a period of the calendar, on what, and what happens when it runs out."""

    metadata: ObjectMeta
    spec: LLMBudgetSpec
    status: LLMBudgetStatus = Field(default_factory=LLMBudgetStatus)

    @property
    def name(self) -> str:
        """The name that refusals tell."""
        return self.metadata.name
