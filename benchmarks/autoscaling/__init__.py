"""Autoscaling: our decision, published rules and a clairvoyant planner: `python -m benchmarks.autoscaling`."""
