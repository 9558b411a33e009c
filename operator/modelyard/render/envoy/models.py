"""`GET /v1/models`: every model a client may ask for, sleeping ones included."""

import json
from collections.abc import Iterable

from modelyard.core.routing import Route
from modelyard.render.envoy.typed import Json


def model_info(model: str, route: Route) -> Json:
    """Return one model as OpenAI's API describes it."""
    return {"id": model, "object": "model", "created": route.created, "owned_by": route.owner}


def model_info_body(model: str, route: Route) -> str:
    """Return the reply to `GET /v1/models/{model}`."""
    return json.dumps(model_info(model, route))


def model_list_body(models: Iterable[tuple[str, Route]]) -> str:
    """Return the reply to `GET /v1/models`."""
    return json.dumps({"object": "list", "data": [model_info(model, route) for model, route in models]})
