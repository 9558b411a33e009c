"""What tokens cost at the usual API providers, for the break-even of an own deployment."""

import re
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

_SUFFIX = re.compile(
    r"[-_.](awq|gptq|gguf|fp8|int4|int8|w8a8|w4a16|nvfp4|fp4|bnb|dynamic|quantized|4bit|8bit|g128|turbo|hf)$"
)
"""What a repository's name says about how the weights are stored, not about which model it is."""


@dataclass(frozen=True, slots=True)
class ApiPrice:
    """The price of one model at one provider, in US dollars for a million tokens."""

    provider: str
    model: str
    """The provider's own name for it."""
    input_per_million: Decimal
    output_per_million: Decimal
    cached_per_million: Decimal | None
    """Input tokens that the provider's prompt cache answers; None: no price of their own."""
    source: str
    date: date
    """When the source gave this price."""
    open_model: str | None
    """Repository on Hugging Face whose weights the provider serves; None: not public."""


@cache
def load_api_prices() -> tuple[ApiPrice, ...]:
    """Return all known prices."""
    text = files("modelyard.catalog").joinpath("api_prices.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(text)
    return tuple(_read_row(row, document["sources"]) for row in document["prices"])


def hosted_prices(repository_or_name: str) -> tuple[ApiPrice, ...]:
    """Return the prices of the providers that host an open model, by what a mean token costs there, cheapest first.

    The organisation, the case and how the weights are quantised do not matter: `meta-llama/Llama-3.1-8B-Instruct`,
    `llama-3.1-8b-instruct` and `RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8-dynamic` are the same model.
    """
    wanted = _model_key(repository_or_name)
    found = [
        price for price in load_api_prices() if price.open_model and _model_key(price.open_model) == wanted
    ]
    return tuple(sorted(found, key=lambda price: price.input_per_million + price.output_per_million))


def _model_key(name: str) -> str:
    key = name.rpartition("/")[2].lower().removeprefix("meta-")
    while shorter := _SUFFIX.sub("", key):
        if shorter == key:
            break
        key = shorter
    return key


def _read_row(row: list[Any], sources: dict[str, dict[str, Any]]) -> ApiPrice:
    provider, model, input_price, output_price, cached_price, source, open_model = row
    return ApiPrice(
        provider=provider,
        model=model,
        input_per_million=Decimal(input_price),
        output_per_million=Decimal(output_price),
        cached_per_million=None if cached_price is None else Decimal(cached_price),
        source=sources[source]["name"],
        date=sources[source]["date"],
        open_model=open_model,
    )
