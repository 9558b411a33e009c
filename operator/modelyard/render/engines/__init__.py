"""The engines that Modelyard can run, one module each."""

from collections.abc import Mapping
from types import MappingProxyType

from modelyard.api.engines import EngineName
from modelyard.render.engines.base import EngineAdapter
from modelyard.render.engines.llamacpp import LlamaCpp
from modelyard.render.engines.vllm import VLLM

ENGINES: Mapping[EngineName, EngineAdapter] = MappingProxyType({"vLLM": VLLM(), "LlamaCpp": LlamaCpp()})
"""Adapter of each engine that a deployment may name."""
