"""Envoy's configuration, derived from the routing table: pure functions that return JSON-shaped dictionaries."""
