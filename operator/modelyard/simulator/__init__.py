"""Behaviour on traffic without a cluster: the very decision of the cluster, and its rivals, over simulated engines."""
