"""A policy around another: for what is to be noted of its decisions."""

from modelyard.simulator.scenario import ScalingPolicy, Signals


class PolicyWrapper:
    """Does what another policy does."""

    def __init__(self, policy: ScalingPolicy) -> None:
        self._policy = policy

    @property
    def name(self) -> str:
        """Name in reports."""
        return self._policy.name

    @property
    def interval(self) -> float:
        """Seconds between two decisions."""
        return self._policy.interval

    @property
    def reason(self) -> str:
        """Reason code of the last decision; empty for a policy that gives none."""
        return str(getattr(self._policy, "reason", None) or "")

    def decide(self, signals: Signals) -> int:
        """Return what the policy wants."""
        return self._policy.decide(signals)
