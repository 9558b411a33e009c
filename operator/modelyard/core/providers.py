"""The status of an LLMProvider."""

from modelyard.api.llmprovider import LLMProvider, LLMProviderStatus
from modelyard.api.meta import Refusal
from modelyard.core.reasons import Code, Reason
from modelyard.core.status import READY, Verdict, stamp

_PLAIN = (
    "the gateway sends this provider nothing: it is not given the API key, because its connection to the operator is "
    "neither encrypted nor on loopback; start the operator with --xds-tls, and Envoy with a bootstrap made with it too"
)


def build_provider_status(
    provider: LLMProvider, refusal: Refusal | None, now: float, *, plain: bool | None = False
) -> LLMProviderStatus:
    """Return the status that the provider should have.

    `plain` says whether an Envoy is connected that gets no keys; None: no Envoy is connected, so what stands stays.

    Ready says that the operator has what the gateway needs, and the gateway can get it. Whether the API answers shows
    in the gateway's counters: asking costs money.
    """
    if plain is None:
        plain = any(item.reason == Code.GATEWAY_NOT_ENCRYPTED for item in provider.status.conditions)
    if refusal is not None:
        reason = Reason(refusal.reason, refusal.message)
    elif plain and provider.spec.secret_ref is not None:
        reason = Reason(Code.GATEWAY_NOT_ENCRYPTED, _PLAIN)
    else:
        models = ", ".join(model.name for model in provider.spec.models)
        reason = Reason(Code.CONFIGURED, f"routes may use {models}")
    verdict = Verdict(READY, reason.code == Code.CONFIGURED, reason)
    generation = provider.metadata.generation
    conditions = stamp([verdict], provider.status.conditions, generation, now)
    return LLMProviderStatus(observed_generation=generation, conditions=conditions)
