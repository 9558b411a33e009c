"""`LLMProvider`: an external API that speaks OpenAI's protocol, with the models that routes may use there."""

from decimal import Decimal
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints

from modelyard.api.meta import ApiModel, ModelName, ObjectMeta, Rule, SecretKey, Status
from modelyard.api.quantities import PerMinute, Price, Quality

BaseUrl = Annotated[
    str,
    StringConstraints(
        pattern=r"^https://([a-z0-9]([-a-z0-9]*[a-z0-9])?\.)*[a-z]([-a-z0-9]*[a-z0-9])?(:[1-9][0-9]{0,4})?"
        r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*/?$",
        max_length=512,
    ),
]
"""A host name in lower case (an IP address has no name that a certificate could be checked for), a port and a path."""

ENDPOINT_PATHS = ("completions", "embeddings", "messages", "rerank", "responses", "score")
"""Last parts of the paths below a base URL: those of the request scan (`render/envoy/lua/request_scan.lua`)."""


class ProviderPrice(ApiModel):
    """US dollars per million tokens."""

    input_per_million: Price
    cached_input_per_million: Price | None = Field(
        default=None, description="Input tokens that the provider finds in its cache. Default: as all others."
    )
    output_per_million: Price

    RULES: ClassVar[tuple[Rule["ProviderPrice"], ...]] = (
        Rule(
            name="cached-not-above-input",
            cel="!has(self.cachedInputPerMillion) "
            "|| double(self.cachedInputPerMillion) <= double(self.inputPerMillion)",
            message="cachedInputPerMillion must not be above inputPerMillion: check the two prices",
            holds=lambda price: (
                price.cached_input_per_million is None
                or Decimal(price.cached_input_per_million) <= Decimal(price.input_per_million)
            ),
            field_path=".cachedInputPerMillion",
        ),
    )


class ProviderModel(ApiModel):
    """A model of the provider."""

    name: ModelName = Field(description="The name that the provider knows it by.")
    price: ProviderPrice | None = None
    quality: Quality | None = Field(
        default=None,
        description="From 0 to 1, on the scale that the routes of this installation use. A target may say otherwise.",
    )
    context_length: Annotated[int, Field(ge=1, le=100_000_000)] | None = Field(
        default=None, description="Tokens of a request and its answer together."
    )


class ProviderLimits(ApiModel):
    """How much may be sent to the provider, over all gateways together, as its terms say."""

    requests_per_minute: PerMinute | None = Field(
        default=None, description="Requests, further attempts included. Absent: no limit."
    )
    tokens_per_minute: PerMinute | None = Field(
        default=None,
        description="Tokens of prompts and answers, counted when an answer ends. Absent: no limit.",
    )

    RULES: ClassVar[tuple[Rule["ProviderLimits"], ...]] = (
        Rule(
            name="one-at-least",
            cel="has(self.requestsPerMinute) || has(self.tokensPerMinute)",
            message="limits needs requestsPerMinute, tokensPerMinute or both: leave it out where there are none",
            holds=lambda limits: (
                limits.requests_per_minute is not None or limits.tokens_per_minute is not None
            ),
        ),
    )


def _ends_with_endpoint(url: str) -> bool:
    return url.rstrip("/").rpartition("/")[2] in {*ENDPOINT_PATHS, "chat"}


class LLMProviderSpec(ApiModel):
    """Where the API is, how it is paid and what it offers."""

    base_url: BaseUrl = Field(
        alias="baseURL",
        description="As clients of the API write it, for example https://api.openai.com/v1: the path takes the place "
        "of the gateway's /v1.",
    )
    secret_ref: SecretKey | None = Field(
        default=None,
        description="The API key, sent as a Bearer token. Absent: none is sent.",
    )
    ca_secret_ref: SecretKey | None = Field(
        default=None,
        description="PEM certificates that the server's is checked with. Absent: the public ones of the gateway's "
        "system.",
    )
    region: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?$")] | None = (
        Field(default=None, max_length=63, description="Where requests are processed, for people.")
    )
    stream_usage: Literal["OnRequest", "Always"] = Field(
        default="OnRequest",
        description="When the API tells the tokens of a streamed answer. OnRequest: where stream_options.include_usage "
        "asks for it, which the gateway adds to requests without it. Always: by itself; nothing is added, as such APIs "
        "may refuse it (Mistral's does).",
    )
    limits: ProviderLimits | None = Field(
        default=None,
        description="How much may be sent to it per minute. While a limit is used up, requests go to other targets of "
        "their routes, or are answered 429. Absent: no limits of the gateway's own.",
    )
    models: Annotated[
        tuple[ProviderModel, ...],
        Field(
            min_length=1,
            max_length=64,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ]

    RULES: ClassVar[tuple[Rule["LLMProviderSpec"], ...]] = (
        Rule(
            name="port-bounds",
            cel="url(self.baseURL).getPort() == '' || int(url(self.baseURL).getPort()) <= 65535",
            message="the port of baseURL must be from 1 to 65535",
            holds=lambda spec: int(urlsplit(spec.base_url).netloc.partition(":")[2] or 1) <= 65535,
            field_path=".baseURL",
        ),
        Rule(
            name="base-url-without-endpoint",
            cel=f"!self.baseURL.matches('/(chat|{'|'.join(ENDPOINT_PATHS)})/?$')",
            message="baseURL must end before the endpoint, with the API's version: https://host/v1, not "
            "https://host/v1/chat/completions",
            holds=lambda spec: not _ends_with_endpoint(spec.base_url),
            field_path=".baseURL",
        ),
    )


class LLMProviderStatus(Status):
    """What is."""


class LLMProvider(ApiModel):
    """An external API that speaks OpenAI's protocol, with the models that routes may use there."""

    metadata: ObjectMeta
    spec: LLMProviderSpec
    status: LLMProviderStatus = Field(default_factory=LLMProviderStatus)

    @property
    def name(self) -> str:
        """The name that routes call it by."""
        return self.metadata.name
