"""Whether a model fits on some accelerators, with which context, and what would help where it does not."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from modelyard.api.engines import EngineName
from modelyard.api.modelprofile import ModelProfile
from modelyard.catalog.hardware import Hardware
from modelyard.catalog.quantization import FORMATS, WeightFormat
from modelyard.core.load import LoadShape
from modelyard.core.memory import (
    GIB,
    MemorySettings,
    Parallelism,
    cache_token_bytes,
    count_weights,
    engine_overhead,
    memory_settings,
    round_to_blocks,
    sequence_bytes,
)

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
class MemorySum:
    """What one accelerator has to hold, in bytes; of several, the one that holds the most."""

    profile: ModelProfile
    settings: MemorySettings
    """With the engine's defaults for the accelerator in place of None."""
    memory: int
    """Memory of the accelerator."""
    parallelism: Parallelism
    context_length: int
    """Tokens of the longest sequence that can run; of what does not fit: that should."""

    @property
    def budget(self) -> int:
        """What the engine may take of the memory."""
        return int(self.memory * self.settings.memory_share)

    @property
    def weights(self) -> int:
        """The weights."""
        return count_weights(self.profile, self.settings.weights, self.parallelism)

    @property
    def overhead(self) -> int:
        """The engine's own needs: activations, CUDA graphs, buffers, adapters."""
        return engine_overhead(self.profile, self.settings, self.parallelism)

    @property
    def available(self) -> int:
        """What weights and overhead leave for the cache; negative: they do not fit themselves."""
        return self.budget - self.weights - self.overhead

    @property
    def cache_per_token(self) -> int:
        """Cache of one token, while no sliding window has passed it."""
        return cache_token_bytes(self.profile, self.settings, self.parallelism)

    @property
    def reserved_sequences(self) -> int:
        """Sequences of full length that must fit.

        vLLM needs one. llama.cpp, when asked for a context, sets it aside for each slot; else its slots share one.
        """
        slots = self.settings.max_sequences or 1
        return slots if self.settings.engine == "LlamaCpp" and self.settings.context_length else 1

    def sequence_cache(self, tokens: int) -> int:
        """Return the cache of one sequence of so many tokens."""
        return sequence_bytes(self.profile, self.settings, self.parallelism, tokens)

    def longest(self, most: int) -> int:
        """Return the longest sequence, up to `most` tokens, that can run; 0: none can."""
        available = self.available // self.reserved_sequences
        low, high = 0, most
        while low < high:
            middle = (low + high + 1) // 2
            if self.sequence_cache(middle) <= available:
                low = middle
            else:
                high = middle - 1
        return low if low == most else round_to_blocks(low, self.settings)

    def explain(self) -> str:
        """Return the sum in one sentence."""
        count = self.parallelism.accelerators
        each = f"on each of {count} accelerators " if count > 1 else ""
        tokens = self.context_length
        if self.sequence_cache(tokens) == self.cache_per_token * tokens:
            cache = f"{_kib(self.cache_per_token)} a token x {tokens}"
        else:
            cache = f"{_gib(self.sequence_cache(tokens))} for {tokens} tokens"
        if self.reserved_sequences > 1:
            cache += f" x {self.reserved_sequences} sequences"
        whole = "" if self.budget == self.memory else f", the engine's share of {_gib(self.memory)}"
        return (
            f"{each}weights {_gib(self.weights)} + cache {cache} + overhead {_gib(self.overhead)} "
            f"of {_gib(self.budget)}{whole}"
        )


@dataclass(frozen=True, slots=True)
class Fit(MemorySum):
    """The model fits."""

    @property
    def cache(self) -> int:
        """The cache that the engine sets aside: vLLM all that is left, llama.cpp what its sequences may need."""
        if self.settings.engine == "vLLM":
            return self.available
        return self.reserved_sequences * self.sequence_cache(self.context_length)

    @property
    def cache_tokens(self) -> int:
        """Tokens that all running sequences may hold together, when each is as long as `context_length`.

        Shorter ones hold fewer in all where layers have a sliding window: see `sequences`.
        """
        tokens = self.cache * self.context_length // self.sequence_cache(self.context_length)
        return max(self.context_length, round_to_blocks(tokens, self.settings))

    def sequences(self, tokens: int) -> int:
        """Return how many sequences of so many tokens can run at once."""
        held = self._sequences_held(tokens)
        return min(held, self.settings.max_sequences or held)

    def requests_held(self, shape: LoadShape) -> int:
        """Return how many requests the cache holds at a time, whatever the engine's limit on sequences.

        While it runs, a request holds its prompt, less what the prefix cache shares, and on average half of its
        answer. 0: not even one whole request finds room.
        """
        if self._sequences_held(math.ceil(shape.input_tokens + shape.output_tokens)) == 0:
            return 0
        held = shape.input_tokens * (1 - shape.cached_share) + shape.output_tokens / 2
        return max(1, self._sequences_held(math.ceil(held)))

    def _sequences_held(self, tokens: int) -> int:
        if self.settings.engine == "vLLM":
            return self.cache // self.sequence_cache(max(1, tokens))
        return self.cache_tokens // max(1, tokens)


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
        text = f"does not fit: {self.obstacle or f'{self.explain()}; {_gib(self.missing)} too much'}"
        if not self.remedies:
            return (
                f"{text}. No context, quantisation or number of these accelerators would help; a replica runs on one "
                "node: several (LeaderWorkerSet) are not supported"
            )
        return f"{text}. {'; or '.join(item.sentence for item in self.remedies)}"


def parallelisms(
    profile: ModelProfile, accelerators: int, engine: EngineName = "vLLM"
) -> tuple[Parallelism, ...]:
    """Return the ways to use exactly so many accelerators of one node, the fastest first.

    Tensor parallelism needs the attention heads to be divisible, and the key-value heads too, unless each is copied
    to equally many accelerators. Where that is impossible (Falcon 7B has 71 heads) the layers are split. llama.cpp
    always splits by layers. None is possible where there are fewer layers than accelerators.
    """
    found = []
    for pipeline in range(1, min(accelerators, profile.layers) + 1):
        tensor, rest = divmod(accelerators, pipeline)
        if rest == 0 and (tensor == 1 or (engine == "vLLM" and _divides_heads(profile, tensor))):
            found.append(Parallelism(tensor, pipeline))
    return tuple(found)


def check_fit(
    profile: ModelProfile, settings: MemorySettings, hardware: Hardware, parallelism: Parallelism
) -> Fit | DoesNotFit:
    """Return whether the model fits on accelerators that share it in this way, and what would help if not."""
    answer = _measure(profile, settings, hardware, parallelism)
    return answer if isinstance(answer, Fit) else _with_remedies(answer, settings, hardware)


def choose_fit(
    profile: ModelProfile, settings: MemorySettings, hardware: Hardware, limit: int
) -> Fit | DoesNotFit:
    """Return the fit on the smallest number of accelerators up to `limit`.

    Powers of two are tried first, as nodes and heads come in them; other numbers only where no power of two fits.
    """
    answers = []
    for parallelism in _ways(profile, settings.engine, hardware, limit):
        answer = _measure(profile, settings, hardware, parallelism)
        if isinstance(answer, Fit):
            return answer
        answers.append(answer)
    # What comes nearest tells the user most.
    return _with_remedies(min(answers, key=lambda item: item.missing), settings, hardware)


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
    if parallelism in parallelisms(profile, parallelism.accelerators, engine):
        return None
    return (
        f"{profile.attention_heads} attention heads, {profile.kv_heads} key-value heads and {profile.layers} layers "
        f"cannot be divided among {parallelism.tensor} x {parallelism.pipeline} accelerators"
    )


def _divides_heads(profile: ModelProfile, tensor: int) -> bool:
    cached = profile.kv_heads
    return profile.attention_heads % tensor == 0 and (cached % tensor == 0 or tensor % cached == 0)


def _ways(profile: ModelProfile, engine: EngineName, hardware: Hardware, limit: int) -> Iterator[Parallelism]:
    """Yield what may be tried on up to `limit` accelerators: powers of two first. Slices of a GPU work alone."""
    numbers = range(1, (1 if hardware.partition else max(1, limit)) + 1)
    for number in sorted(numbers, key=lambda number: (number & (number - 1) != 0, number)):
        yield from parallelisms(profile, number, engine)


def _with_remedies(answer: DoesNotFit, settings: MemorySettings, hardware: Hardware) -> DoesNotFit:
    """Add the nearest changes after which it fits. Each was tried. `settings` are those before resolving."""
    remedies = [] if answer.obstacle else [*_shorter_context(answer, settings)]
    if answer.obstacle is None:
        remedies += [
            Remedy(sentence, changed, answer.parallelism)
            for sentence, changed in _smaller_values(settings)
            if isinstance(_measure(answer.profile, changed, hardware, answer.parallelism), Fit)
        ]
        remedies += _larger_share(answer, settings, hardware)
    remedies += _more_accelerators(answer, settings, hardware)
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
    for way in _ways(answer.profile, settings.engine, hardware, _MOST_ACCELERATORS):
        another = answer.obstacle is not None or way.accelerators > answer.parallelism.accelerators
        if another and isinstance(_measure(answer.profile, settings, hardware, way), Fit):
            stages = f" (layers in {way.pipeline} pipeline stages)" if way.pipeline > 1 else ""
            sentence = f"set placement.accelerators[].count to {way.accelerators}{stages}"
            yield Remedy(sentence, settings, way)
            return


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


def _kib(size: int) -> str:
    return f"{size / 1024:.0f} KiB" if size % 1024 == 0 else f"{size / 1024:.1f} KiB"
