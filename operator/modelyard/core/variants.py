"""The ways in which a deployment may run: which accelerator, how many of them, on demand or spot, and how fast."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.api.engines import EngineName
from modelyard.api.meta import Refusal
from modelyard.api.modelprofile import ModelProfile
from modelyard.catalog.hardware import Hardware
from modelyard.core.fit import Fit
from modelyard.core.inventory import Pool
from modelyard.core.load import LoadShape, Objective
from modelyard.core.memory import Parallelism
from modelyard.core.perf.predict import Capacity, largest_capacity
from modelyard.core.perf.step import StepTime

DEFAULT_START_TIME = 120.0
"""Seconds from a new pod to its first answer where the size of the model is not known: llm-d measured 98 to 130 s
(llm-d/llm-d-autoscaling issues 1404, 1412 and 1421)."""

ENGINE_START: Mapping[EngineName, float] = {"vLLM": 75.0, "LlamaCpp": 10.0}
"""Seconds from a new pod to its first answer beside reading the weights. vLLM profiles memory, compiles and captures
CUDA graphs: with Qwen3-32B on an H100 its start took 91 s (llm-d/llm-d-autoscaling, `gpu-free-overprovisioning`), and
loading that model takes 12 to 21 s (ServerlessLLM, https://github.com/ServerlessLLM/ServerlessLLM). llama.cpp does
none of that: our assumption."""

READ_BANDWIDTH = 1.7e9
"""Bytes of weights per second that a node reads from its cache or storage, for all its accelerators together. With it,
the 66 GB of Qwen3-32B make 114 s in all, the middle of llm-d's measurements of that model (see DEFAULT_START_TIME).
Faster nodes are known: 70 GB in 10 s, of a start of 200 s (https://github.com/vllm-project/vllm/issues/19824)."""


def expected_start_time(fit: Fit) -> float:
    """Return the seconds from a new pod to its first answer, before any start was observed; no new node counted."""
    weights = fit.weights * fit.parallelism.accelerators
    return ENGINE_START[fit.settings.engine] + weights / READ_BANDWIDTH


@dataclass(frozen=True, slots=True)
class Variant:
    """One way of running a deployment."""

    name: str
    accelerator: AcceleratorClass
    parallelism: Parallelism
    spot: bool
    pool: Pool
    capacity: float
    """Requests per second that one replica answers within the objective."""
    price: Decimal | None
    """US dollars per hour and replica; None: not known."""
    stand_in: float = 0.0
    """US dollars per hour and replica to decide with where the price is not known."""
    hardware: Hardware | None = None
    fit: Fit | None = None
    """None: memory was not checked, because model or accelerator is not known."""
    prior: StepTime | None = None
    """What its speed is thought to be before anything is learned; None: not known."""
    step: StepTime | None = None
    """The same with what was learned since."""
    objective: Objective = field(default_factory=Objective)
    speed: Capacity | None = None
    """What it answers within the objective; None: its speed is not known."""
    basis: str = ""
    """Where the capacity comes from, as a clause."""
    start_time: float = DEFAULT_START_TIME
    """Seconds from a new pod to its first answer, before any start was observed; no new node counted."""

    @property
    def hourly(self) -> float:
        """US dollars per hour and replica to decide with."""
        return self.stand_in if self.price is None else float(self.price)

    @property
    def count(self) -> int:
        """Accelerators of one replica."""
        return self.parallelism.accelerators

    @property
    def nodes(self) -> int:
        """Nodes that one replica spans."""
        return self.parallelism.nodes

    @property
    def per_node(self) -> int:
        """Accelerators of one replica on each of its nodes."""
        return self.parallelism.per_node

    @property
    def meets_objective(self) -> bool:
        """Whether one replica answers at least one request at a time within the objective, as far as is known."""
        return self.speed is None or self.speed.feasible

    def rate_of(self, shape: LoadShape) -> float | None:
        """Return the requests of some mean size per second that one replica answers within the objective.

        By medians, without a margin for what is not certain: to compare requests with each other. None: its speed is
        not known, or not even one request at a time meets the objective.
        """
        if self.step is None or self.fit is None:
            return None
        step = replace(self.step, uncertainty=0.0, first_token_uncertainty=0.0)
        most = self.fit.settings.max_sequences or 1
        held = self.fit.requests_held(shape)
        found = largest_capacity(step, shape, self.objective, held, most, self.fit.context_length)
        return found.requests_per_second if found.feasible else None

    @property
    def fitting_context(self) -> int | None:
        """Tokens of the longest sequence, where the spec asks for none and the model's own does not fit."""
        fit = self.fit
        if fit is None or fit.settings.context_length is not None:
            return None
        return fit.context_length if fit.context_length < fit.profile.context_length else None

    @property
    def label(self) -> str:
        """How people read it: `2 x h100`, `1 x l4 spot`, `8 x h100 x 2 nodes`."""
        return variant_label(self.accelerator.metadata.name, self.per_node, spot=self.spot, nodes=self.nodes)


@dataclass(frozen=True, slots=True)
class Rejection:
    """A class, or a size of replica on it, that cannot be used."""

    label: str
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class VariantList:
    """The ways that work, in the spec's order, and why others do not."""

    variants: tuple[Variant, ...]
    rejected: tuple[Rejection, ...] = ()
    profile: ModelProfile | None = None

    def find(self, name: str) -> Variant | None:
        """Return the variant of a name."""
        return next((variant for variant in self.variants if variant.name == name), None)


def variant_label(class_name: str, per_node: int, *, spot: bool, nodes: int | None = None) -> str:
    """Return how people read a variant. `per_node`: accelerators on each of the nodes; None is one."""
    text = f"{per_node} x {class_name}{' spot' if spot else ''}"
    return f"{text} x {nodes} nodes" if (nodes or 1) > 1 else text


def variant_name(class_name: str, count: int, *, spot: bool, nodes: int = 1) -> str:
    """Return the name of a variant: five characters, which a child's name ends in.

    `count`: accelerators of one replica, over all its nodes.
    """
    spread = f"/{nodes} nodes" if nodes > 1 else ""
    text = f"{class_name}/{count}/{'spot' if spot else 'on-demand'}{spread}"
    digest = hashlib.sha256(text.encode()).digest()
    return base64.b32encode(digest)[:5].decode().lower()
