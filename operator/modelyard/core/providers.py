"""The status of an LLMProvider."""

from modelyard.api.llmprovider import LLMProvider, LLMProviderStatus
from modelyard.api.meta import Refusal
from modelyard.core.reasons import Code, Reason
from modelyard.core.status import READY, Verdict, stamp


def build_provider_status(provider: LLMProvider, refusal: Refusal | None, now: float) -> LLMProviderStatus:
    """Return the status that the provider should have.

    Ready says that the operator has what the gateway needs. Whether the API answers shows in the gateway's counters:
    asking costs money.
    """
    reason = (
        Reason(Code.CONFIGURED, f"routes may use {', '.join(model.name for model in provider.spec.models)}")
        if refusal is None
        else Reason(refusal.reason, refusal.message)
    )
    verdict = Verdict(READY, refusal is None, reason)
    generation = provider.metadata.generation
    conditions = stamp([verdict], provider.status.conditions, generation, now)
    return LLMProviderStatus(observed_generation=generation, conditions=conditions)
