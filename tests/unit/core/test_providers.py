"""When an LLMProvider is Ready, and why it is not."""

import pytest

from modelyard.api.llmprovider import LLMProvider
from modelyard.api.meta import Refusal, wire
from modelyard.core.providers import build_provider_status
from modelyard.core.reasons import Code


def provider(*, keyed=True, status=None) -> LLMProvider:
    spec = {"baseURL": "https://api.example.com/v1", "models": [{"name": "large"}]}
    if keyed:
        spec["secretRef"] = {"name": "keys", "key": "acme"}
    body = {"metadata": {"name": "acme", "generation": 1}, "spec": spec}
    if status is not None:
        body["status"] = wire(status)
    return LLMProvider.model_validate(body)


def ready(status) -> tuple[str, str]:
    (condition,) = status.conditions
    return condition.status, condition.reason


@pytest.mark.parametrize(
    ("keyed", "plain", "expected"),
    [
        (True, False, ("True", Code.CONFIGURED)),
        (True, None, ("True", Code.CONFIGURED)),
        (True, True, ("False", Code.GATEWAY_NOT_ENCRYPTED)),
        (False, True, ("True", Code.CONFIGURED)),
    ],
)
def test_a_key_that_the_gateway_cannot_get_makes_a_provider_unready(keyed, plain, expected):
    assert ready(build_provider_status(provider(keyed=keyed), None, 0.0, plain=plain)) == expected


def test_what_the_secret_lacks_is_said_first():
    refusal = Refusal(Code.SECRET_NOT_FOUND, "create it")
    assert ready(build_provider_status(provider(), refusal, 0.0, plain=True)) == (
        "False",
        Code.SECRET_NOT_FOUND,
    )


def test_a_restart_changes_nothing_before_envoy_is_back():
    plain = build_provider_status(provider(), None, 0.0, plain=True)
    assert "--xds-tls" in plain.conditions[0].message
    again = provider(status=plain)
    assert build_provider_status(again, None, 99.0, plain=None) == plain
    assert ready(build_provider_status(again, None, 99.0, plain=False)) == ("True", Code.CONFIGURED)
