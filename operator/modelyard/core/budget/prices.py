"""What a request costs at each target of a route, for routes whose budget asks for the cheapest."""

from collections.abc import Iterable, Mapping

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.core.breakeven.inputs import TOKENS, TokenPrice
from modelyard.core.load import LoadShape
from modelyard.core.routing import RoutingTable, external_key
from modelyard.core.snapshot import Provider


def price_targets(
    table: RoutingTable,
    deployments: Mapping[str, LLMDeployment],
    providers: Iterable[Provider],
    mix: LoadShape,
) -> dict[str, float]:
    """Return US dollars for the mean request by upstream, of those whose price is known.

    A deployment costs what its tokens cost now (`status.cost.perMillionTokens`: its accelerators, used or not, over
    what it answers), so it has no price before it has answered anything.
    """
    found = {}
    for name in table.upstreams:
        deployment = deployments.get(name.partition(":")[0])
        cost = deployment.status.cost if deployment is not None else None
        if cost is not None and cost.per_million_tokens is not None:
            tokens = mix.input_tokens + mix.output_tokens
            found[name] = float(cost.per_million_tokens) * tokens / TOKENS
    for provider in providers:
        for model in provider.object.spec.models:
            if model.price is not None:
                cached = model.price.cached_input_per_million
                price = TokenPrice(
                    float(model.price.input_per_million),
                    float(model.price.output_per_million),
                    None if cached is None else float(cached),
                )
                found[external_key(provider.object.name, model.name)] = price.per_request(mix)
    return {
        name: price for name, price in found.items() if name in table.upstreams or name in table.externals
    }
