"""Run by vLLM's own Python, which has none of our packages."""
