"""How much may be under way to one cluster."""

from modelyard.render.envoy.settings import GatewaySettings
from modelyard.render.envoy.typed import Json


def circuit_breakers(settings: GatewaySettings) -> Json:
    """Return the limits of one cluster."""
    return {
        "thresholds": [
            {
                "max_connections": settings.max_upstream,
                "max_pending_requests": settings.max_upstream,
                "max_requests": settings.max_upstream,
                "max_retries": settings.max_retries,
            }
        ]
    }
