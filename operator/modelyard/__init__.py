"""Modelyard: fleets of open LLMs on your own GPUs, as a Kubernetes operator."""
