"""The kinds of the API group `modelyard.dev`, as Pydantic models."""
