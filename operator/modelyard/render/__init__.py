"""Pure builders: from a decided workload to the Kubernetes objects that run it."""
