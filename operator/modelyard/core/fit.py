"""Whether a model fits on some accelerators, with which context, and what would help where it does not."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from modelyard.api.engines import EngineName
from modelyard.api.modelprofile import ModelProfile
from modelyard.api.placement import MOST_NODES
from modelyard.catalog.hardware import Hardware
from modelyard.catalog.quantization import FORMATS, WeightFormat
from modelyard.core.memory import MemorySettings, Parallelism, memory_settings
from modelyard.core.memorysum import Fit, MemorySum, format_gib

__all__ = [
    "DoesNotFit",
    "Fit",
    "MemorySettings",
    "Parallelism",
    "Remedy",
    "check_fit",
    "choose_fit",
    "memory_settings",
    "parallelisms",
    "smallest_fits",
]

SMALLEST_CONTEXT: Final = 2048
"""Tokens that must fit where no context is asked for; KAITO's default for the same question
(https://github.com/kaito-project/kaito/blob/main/website/docs/memory-estimator.md)."""

_MOST_ACCELERATORS: Final = 16
"""Upper bound of `placement.accelerators[].count`."""

_LARGER_SHARE: Final = 0.95
"""Share of the memory for the engine that published vLLM runs use where the default is too little
(https://docs.vllm.ai/en/latest/configuration/conserving_memory/ names the parameter)."""

_SMALLER_WEIGHTS: Final[Mapping[EngineName, tuple[tuple[WeightFormat, str], ...]]] = {
    "vLLM": (
        (FORMATS["fp8"], "set model.quantization to fp8"),
        (FORMATS["awq"], "choose a model.source whose weights are quantised to int4 (AWQ or GPTQ)"),
    ),
    "LlamaCpp": (
        (FORMATS["q8-0"], "choose Q8_0 as the tag of model.source, or as model.quantization"),
        (FORMATS["q4-k-m"], "choose Q4_K_M as the tag of model.source, or as model.quantization"),
    ),
}
"""Formats to propose, the more exact first."""

_SMALLER_CACHE: Final[Mapping[EngineName, tuple[float, str]]] = {
    "vLLM": (8.0, "set engine.parameters.kv-cache-dtype to fp8"),
    "LlamaCpp": (8.5, "set engine.parameters.cache-type-k and cache-type-v to q8_0"),
}
"""Bits of a value in the cache to propose."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change after which the model fits."""

    sentence: str
    """What to set, naming the field."""
    settings: MemorySettings
    parallelism: Parallelism


@dataclass(frozen=True, slots=True)
class DoesNotFit(MemorySum):
    """The model does not fit."""

    obstacle: str | None = None
    """Why the accelerators cannot share the model in this way, whatever their memory; None: memory is what lacks."""
    remedies: tuple[Remedy, ...] = ()

    @property
    def cache(self) -> int:
        """The cache that would be needed."""
        return self.reserved_sequences * self.sequence_cache(self.context_length)

    @property
    def missing(self) -> int:
        """By how much the sum is above the budget."""
        return max(0, self.cache - self.available)

    def reason(self) -> str:
        """Return the sum and what would help, in sentences."""
        text = f"does not fit: {self.obstacle or f'{self.explain()}; {format_gib(self.missing)} too much'}"
        if not self.remedies:
            return f"{text}. No context, quantisation or number of these accelerators would help"
        return f"{text}. {'; or '.join(item.sentence for item in self.remedies)}"


def parallelisms(
    profile: ModelProfile, accelerators: int, engine: EngineName = "vLLM", nodes: int = 1
) -> tuple[Parallelism, ...]:
    """Return the ways to use exactly so many accelerators of each of so many nodes, the fastest first.

    Tensor parallelism needs the attention heads to be divisible, and the key-value heads too, unless each is copied
    to equally many accelerators. Where that is impossible (Falcon 7B has 71 heads) the layers are split. llama.cpp
    always splits by layers, and runs on one node. None is possible where there are fewer layers than accelerators.

    Nodes follow each other in the pipeline, as vLLM's guide has it: what tensor parallelism exchanges in every layer
    is too much for the network between nodes (https://docs.vllm.ai/en/v0.32.0/serving/parallelism_scaling/).
    """
    if nodes > 1 and engine != "vLLM":
        return ()
    found = []
    for stages in range(1, min(accelerators, profile.layers // nodes) + 1):
        tensor, rest = divmod(accelerators, stages)
        if rest == 0 and (tensor == 1 or (engine == "vLLM" and _divides_heads(profile, tensor))):
            found.append(Parallelism(tensor, stages * nodes, nodes))
    return tuple(found)


def check_fit(
    profile: ModelProfile,
    settings: MemorySettings,
    hardware: Hardware,
    parallelism: Parallelism,
    node: int | None = None,
) -> Fit | DoesNotFit:
    """Return whether the model fits on accelerators that share it in this way, and what would help if not.

    `node`: accelerators of one node; None: not known, and several nodes are not proposed.
    """
    answer = _measure(profile, settings, hardware, parallelism)
    return answer if isinstance(answer, Fit) else _with_remedies(answer, settings, hardware, node)


def choose_fit(
    profile: ModelProfile,
    settings: MemorySettings,
    hardware: Hardware,
    limit: int,
    nodes: int = 1,
    node: int | None = None,
) -> Fit | DoesNotFit:
    """Return the fit on the smallest number of accelerators of each node, up to `limit`.

    Powers of two are tried first, as nodes and heads come in them; other numbers only where no power of two fits.
    `node` is as in `check_fit`.

    Raises ValueError where layers cannot be shared by so many nodes, but the model would fit.
    """
    answers = []
    for parallelism in _ways(profile, settings.engine, hardware, limit, nodes):
        answer = _measure(profile, settings, hardware, parallelism)
        if isinstance(answer, Fit):
            return answer
        answers.append(answer)
    if not answers:
        # Not even one accelerator of each node can have layers of its own.
        answer = _measure(profile, settings, hardware, Parallelism(1, nodes, nodes))
        if isinstance(answer, Fit):
            raise ValueError("what cannot be shared does not fit")
        answers.append(answer)
    # What comes nearest tells the user most.
    return _with_remedies(min(answers, key=lambda item: item.missing), settings, hardware, node)


def smallest_fits(
    profile: ModelProfile, settings: MemorySettings, options: Mapping[str, Hardware], limit: int
) -> dict[str, Fit | DoesNotFit]:
    """Return `choose_fit` for each of several kinds of accelerator."""
    return {name: choose_fit(profile, settings, hardware, limit) for name, hardware in options.items()}


def _measure(
    profile: ModelProfile, settings: MemorySettings, hardware: Hardware, parallelism: Parallelism
) -> Fit | DoesNotFit:
    """Do the sum."""
    if settings.engine == "LlamaCpp":
        parallelism = Parallelism(pipeline=parallelism.accelerators)
    settings = settings.resolve(hardware)
    most = min(profile.context_length, settings.context_length or profile.context_length)
    needed = min(most, SMALLEST_CONTEXT) if settings.context_length is None else most
    obstacle = _obstacle(profile, settings.engine, hardware, parallelism)
    answer = Fit(profile, settings, hardware.memory, parallelism, context_length=most)
    longest = answer.longest(most)
    if obstacle is None and longest >= needed:
        return replace(answer, context_length=longest)
    return DoesNotFit(
        profile, settings, hardware.memory, parallelism, context_length=needed, obstacle=obstacle
    )


def _obstacle(
    profile: ModelProfile, engine: EngineName, hardware: Hardware, parallelism: Parallelism
) -> str | None:
    """Return why accelerators cannot share the model in this way, None if they can."""
    if hardware.partition and parallelism.accelerators > 1:
        return "slices of a GPU (MIG) cannot share a model"
    if hardware.partition and parallelism.nodes > 1:
        return "slices of a GPU (MIG) cannot share a model"
    if parallelism in parallelisms(profile, parallelism.per_node, engine, parallelism.nodes):
        return None
    where = f" of {parallelism.nodes} nodes" if parallelism.nodes > 1 else ""
    return (
        f"{profile.attention_heads} attention heads, {profile.kv_heads} key-value heads and {profile.layers} layers "
        f"cannot be divided among {parallelism.tensor} x {parallelism.pipeline} accelerators{where}"
    )


def _divides_heads(profile: ModelProfile, tensor: int) -> bool:
    cached = profile.kv_heads
    return profile.attention_heads % tensor == 0 and (cached % tensor == 0 or tensor % cached == 0)


def _ways(
    profile: ModelProfile, engine: EngineName, hardware: Hardware, limit: int, nodes: int = 1
) -> Iterator[Parallelism]:
    """Yield what may be tried on up to `limit` accelerators a node: powers of two first. Slices of a GPU work alone."""
    numbers = range(1, (1 if hardware.partition else max(1, limit)) + 1)
    for number in sorted(numbers, key=lambda number: (number & (number - 1) != 0, number)):
        yield from parallelisms(profile, number, engine, nodes)


def _with_remedies(
    answer: DoesNotFit, settings: MemorySettings, hardware: Hardware, node: int | None
) -> DoesNotFit:
    """Add the nearest changes after which it fits. Each was tried. `settings` are those before resolving."""
    remedies = [] if answer.obstacle else [*_shorter_context(answer, settings)]
    if answer.obstacle is None:
        remedies += [
            Remedy(sentence, changed, answer.parallelism)
            for sentence, changed in _smaller_values(settings)
            if isinstance(_measure(answer.profile, changed, hardware, answer.parallelism), Fit)
        ]
        remedies += _larger_share(answer, settings, hardware)
    larger = [*_more_accelerators(answer, settings, hardware)]
    remedies += larger
    if node is not None and not any(item.parallelism.per_node <= node for item in larger):
        remedies += _more_nodes(answer, settings, hardware, node)
    return replace(answer, remedies=tuple(remedies))


def _shorter_context(answer: DoesNotFit, settings: MemorySettings) -> Iterator[Remedy]:
    """Yield the longest context that fits, if it can be asked for."""
    most = answer.profile.context_length
    # The slots of llama.cpp that share one context get one each as soon as it is asked for.
    asked = replace(answer, settings=replace(answer.settings, context_length=most))
    longest = asked.longest(most)
    if longest >= SMALLEST_CONTEXT:
        sentence = f"set model.contextLength to {longest} or less"
        yield Remedy(sentence, replace(settings, context_length=longest), answer.parallelism)


def _smaller_values(settings: MemorySettings) -> Iterator[tuple[str, MemorySettings]]:
    """Yield settings with a smaller cache or smaller weights, and the sentence that asks for them."""
    bits, sentence = _SMALLER_CACHE[settings.engine]
    if max(settings.key_bits, settings.value_bits) > bits:
        key_bits, value_bits = min(bits, settings.key_bits), min(bits, settings.value_bits)
        yield sentence, replace(settings, key_bits=key_bits, value_bits=value_bits)
    for smaller, sentence in _SMALLER_WEIGHTS[settings.engine]:
        if smaller.bits < settings.weights.bits:
            yield sentence, replace(settings, weights=smaller)


def _larger_share(answer: DoesNotFit, settings: MemorySettings, hardware: Hardware) -> Iterator[Remedy]:
    """Yield the larger share of the memory that people give vLLM, if that is enough."""
    if settings.engine != "vLLM" or settings.memory_share >= _LARGER_SHARE:
        return
    larger = replace(settings, memory_share=_LARGER_SHARE)
    if isinstance(_measure(answer.profile, larger, hardware, answer.parallelism), Fit):
        sentence = f"set engine.parameters.gpu-memory-utilization to {_LARGER_SHARE}"
        yield Remedy(sentence, larger, answer.parallelism)


def _more_accelerators(answer: DoesNotFit, settings: MemorySettings, hardware: Hardware) -> Iterator[Remedy]:
    """Yield the smallest number of accelerators that fits: a larger one, unless these cannot be shared at all."""
    nodes = answer.parallelism.nodes
    for way in _ways(answer.profile, settings.engine, hardware, _MOST_ACCELERATORS, nodes):
        another = answer.obstacle is not None or way.accelerators > answer.parallelism.accelerators
        if another and isinstance(_measure(answer.profile, settings, hardware, way), Fit):
            stages = f" (layers in {way.pipeline} pipeline stages)" if way.pipeline > 1 else ""
            sentence = f"set placement.accelerators[].count to {way.per_node}{stages}"
            yield Remedy(sentence, settings, way)
            return


def _more_nodes(
    answer: DoesNotFit, settings: MemorySettings, hardware: Hardware, node: int
) -> Iterator[Remedy]:
    """Yield the smallest number of nodes, with all of their accelerators, that fits; none for slices of a GPU."""
    if hardware.partition:
        return
    for nodes in range(answer.parallelism.nodes + 1, MOST_NODES + 1):
        for way in parallelisms(answer.profile, min(node, _MOST_ACCELERATORS), settings.engine, nodes):
            if isinstance(_measure(answer.profile, settings, hardware, way), Fit):
                sentence = (
                    f"set placement.accelerators[].nodes to {nodes} and count to {way.per_node} "
                    "(LeaderWorkerSet must be installed)"
                )
                yield Remedy(sentence, settings, way)
                return
