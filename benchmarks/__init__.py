"""Measurements. Each asserts that the work was done before it reports a figure."""
