"""Reason codes of the choice between own deployments and providers."""

from typing import Final


class BreakEvenCode:
    """Reason codes. They are API: never renamed."""

    FLEET_CHEAPER: Final = "FleetCheaper"
    """The own deployment costs less than every provider that may be used."""
    PROVIDER_CHEAPER: Final = "ProviderCheaper"
    """A provider costs less than the replicas that could go."""
    ONLY_TARGET: Final = "OnlyTarget"
    """Nothing else may be used."""
    STABILIZING: Final = "Stabilizing"
    """Something else costs less, but has not for long enough yet."""
    NO_DATA: Final = "NoData"
    """The counters are not known: the choice stays."""
    NO_TARGET: Final = "NoTarget"
    """Nothing may be used: requests are refused."""
    STARTING: Final = "Starting"
    """The deployment is chosen and its replicas start; meanwhile requests spill to a provider, or wait."""
    SOVEREIGN: Final = "Sovereign"
    """Of a refused target: the route may not use providers."""
    PRICE_UNKNOWN: Final = "PriceUnknown"
    """Of a refused target."""
    QUALITY_TOO_LOW: Final = "QualityTooLow"
    """Of a refused target: below `minQuality`, or not stated."""
    OBJECTIVE_MISSED: Final = "ObjectiveMissed"
    """Of a refused target: it does not answer the mean request within the objective."""
    NOT_RUNNABLE: Final = "NotRunnable"
    """Of a refused target: it may have no replicas."""
