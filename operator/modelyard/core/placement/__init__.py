"""Placement: which variant, and how many replicas, of every deployment at once."""
