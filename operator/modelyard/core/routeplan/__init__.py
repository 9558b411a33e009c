"""Where the requests of every LLMRoute go now, and what that asks of deployments."""
