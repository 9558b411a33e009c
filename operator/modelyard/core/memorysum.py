"""What one accelerator has to hold for a model, as a sum that can be told, and what a fit leaves for requests."""

import math
from dataclasses import dataclass

from modelyard.api.modelprofile import ModelProfile
from modelyard.core.load import LoadShape
from modelyard.core.memory import (
    GIB,
    MemorySettings,
    Parallelism,
    cache_token_bytes,
    count_weights,
    engine_overhead,
    round_to_blocks,
    sequence_bytes,
)


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
        count, nodes = self.parallelism.accelerators, self.parallelism.nodes
        each = f"on each of {count} accelerators " if count > 1 else ""
        if nodes > 1:
            each = f"on each of {count} accelerators of {nodes} nodes "
        tokens = self.context_length
        if self.sequence_cache(tokens) == self.cache_per_token * tokens:
            cache = f"{_kib(self.cache_per_token)} a token x {tokens}"
        else:
            cache = f"{format_gib(self.sequence_cache(tokens))} for {tokens} tokens"
        if self.reserved_sequences > 1:
            cache += f" x {self.reserved_sequences} sequences"
        whole = "" if self.budget == self.memory else f", the engine's share of {format_gib(self.memory)}"
        return (
            f"{each}weights {format_gib(self.weights)} + cache {cache} + overhead {format_gib(self.overhead)} "
            f"of {format_gib(self.budget)}{whole}"
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


def format_gib(size: int) -> str:
    """Return bytes in GiB."""
    return f"{size / GIB:.1f} GiB"


def _kib(size: int) -> str:
    return f"{size / 1024:.0f} KiB" if size % 1024 == 0 else f"{size / 1024:.1f} KiB"
