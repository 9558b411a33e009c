"""The status of an LLMProvider."""

from collections.abc import Iterator, Mapping

from modelyard.api.llmprovider import LLMProvider, LLMProviderStatus
from modelyard.api.meta import Condition, Refusal
from modelyard.core.answering import AnswerMemory, was_asked
from modelyard.core.providerlimits import LimitMemory, was_reached
from modelyard.core.reasons import Code, Reason
from modelyard.core.routing import external_key
from modelyard.core.status import READY, Verdict, stamp

ANSWERING, LIMIT_REACHED = "Answering", "LimitReached"

_PLAIN = (
    "the gateway sends this provider nothing: it is not given the API key, because its connection to the operator is "
    "neither encrypted nor on loopback; start the operator with --xds-tls, and Envoy with a bootstrap made with it too"
)


def build_provider_status(
    provider: LLMProvider,
    refusal: Refusal | None,
    now: float,
    answers: Mapping[str, AnswerMemory] | None = None,
    limit: LimitMemory | None = None,
    *,
    plain: bool | None = False,
) -> LLMProviderStatus:
    """Return the status that the provider should have. `now`: Unix time.

    Ready says that the operator has what the gateway needs, and the gateway can get it; Answering, what became of
    requests there. Of a provider that nobody has asked lately nothing is known, and what stood stays: asking costs
    money. `answers`: what is known of models, by `external_key`; `limit`: of the provider's limits; `plain`: whether an
    Envoy is connected that gets no keys, None: no Envoy is connected, so what stands stays.
    """
    ready = _judge_readiness(provider, refusal, plain)
    verdicts = [ready, *_judge_answers(provider, answers or {}, now)]
    if provider.spec.limits is not None:
        verdicts.append(_judge_limit(provider.status.conditions, limit, now))
    generation = provider.metadata.generation
    conditions = stamp(verdicts, provider.status.conditions, generation, now)
    return LLMProviderStatus(observed_generation=generation, conditions=conditions)


def _judge_readiness(provider: LLMProvider, refusal: Refusal | None, plain: bool | None) -> Verdict:
    if plain is None:
        plain = any(item.reason == Code.GATEWAY_NOT_ENCRYPTED for item in provider.status.conditions)
    if refusal is not None:
        reason = Reason(refusal.reason, refusal.message)
    elif plain and provider.spec.secret_ref is not None:
        reason = Reason(Code.GATEWAY_NOT_ENCRYPTED, _PLAIN)
    else:
        models = ", ".join(model.name for model in provider.spec.models)
        reason = Reason(Code.CONFIGURED, f"routes may use {models}")
    return Verdict(READY, reason.code == Code.CONFIGURED, reason)


def _judge_answers(
    provider: LLMProvider, answers: Mapping[str, AnswerMemory], now: float
) -> Iterator[Verdict]:
    keys = [external_key(provider.name, model.name) for model in provider.spec.models]
    known = [answers[key] for key in keys if key in answers]
    silent = [item.silence.reason for item in known if item.silence is not None]
    if silent:
        message = "; ".join(reason.message for reason in silent)
        yield Verdict(ANSWERING, False, Reason(silent[0].code, message[:1024]))
    elif any(was_asked(item, now) for item in known):
        yield Verdict(ANSWERING, True, Reason(Code.PROVIDER_ANSWERS, "requests are answered"))
    else:
        yield from (_stand(item) for item in provider.status.conditions if item.type == ANSWERING)


def _judge_limit(before: tuple[Condition, ...], limit: LimitMemory | None, now: float) -> Verdict:
    """Return whether a limit was reached of late; right after a restart, what stood."""
    if limit is None:
        stood = next((_stand(item) for item in before if item.type == LIMIT_REACHED), None)
        if stood is not None:
            return stood
    if limit is not None and was_reached(limit, now):
        message = "a limit per minute was used up within the last 5 minutes: requests went to other targets, or got 429"
        return Verdict(LIMIT_REACHED, True, Reason(Code.LIMIT_REACHED, message))
    return Verdict(LIMIT_REACHED, False, Reason(Code.LIMIT_NOT_REACHED, "what is sent stays within limits"))


def _stand(condition: Condition) -> Verdict:
    return Verdict(condition.type, condition.status == "True", Reason(condition.reason, condition.message))
