"""Prices of the API providers."""

from decimal import Decimal

from modelyard.catalog.api_prices import hosted_prices, load_api_prices


def test_prices_are_whole() -> None:
    prices = load_api_prices()
    assert {price.provider for price in prices} == {
        *("OpenAI", "Gemini", "Anthropic", "Perplexity", "Mistral", "DeepSeek", "Together"),
        *("DeepInfra", "Groq", "Fireworks", "Azure"),
    }
    assert len({(price.provider, price.model) for price in prices}) == len(prices)
    for price in prices:
        assert Decimal(0) < price.input_per_million <= price.output_per_million < 1000
        assert price.cached_per_million is None or 0 < price.cached_per_million < price.input_per_million
        assert price.source
        assert price.date.year >= 2025


def test_a_known_price() -> None:
    price = next(item for item in load_api_prices() if item.model == "gpt-4o")
    assert (price.input_per_million, price.output_per_million) == (Decimal("2.5"), Decimal(10))
    assert price.cached_per_million == Decimal("1.25")
    assert price.open_model is None


def test_hosts_of_an_open_model_are_found_by_any_of_its_names() -> None:
    expected = ["DeepInfra", "Groq", "Fireworks", "Together", "Azure"]
    for name in (
        "meta-llama/Llama-3.1-8B-Instruct",
        "llama-3.1-8b-instruct",
        "RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8-dynamic",
        "hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4",
    ):
        assert [price.provider for price in hosted_prices(name)] == expected


def test_another_model_of_the_family_is_not_it() -> None:
    assert hosted_prices("meta-llama/Llama-3.1-8B") == ()
    assert {price.open_model for price in hosted_prices("meta-llama/Llama-3.3-70B-Instruct")} == {
        "meta-llama/Llama-3.3-70B-Instruct"
    }
