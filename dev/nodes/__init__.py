"""Local nodes: an agent that registers nodes and runs their pods as processes, without root.

`LocalNodes` is the agent; `python -m dev.nodes --help` is its command line.
"""

from dev.nodes.agent import LocalNodes
from dev.nodes.container import RestartBackoff
from dev.nodes.images import EnvironmentRule, parse_environment_rule

__all__ = ["EnvironmentRule", "LocalNodes", "RestartBackoff", "parse_environment_rule"]
