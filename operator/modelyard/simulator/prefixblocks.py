"""A prefix cache of whole blocks that forgets the least recently used: what a trace's prompts would find in it."""

from collections.abc import Hashable, Sequence


class PrefixBlocks:
    """Blocks of earlier prompts, at most `capacity` (None: without limit)."""

    def __init__(self, capacity: int | None = None) -> None:
        if capacity is not None and capacity < 0:
            raise ValueError(f"a cache cannot hold {capacity} blocks")
        self._capacity = capacity
        # A dict keeps its order of insertion: the least recently used block is the first.
        self._blocks: dict[Hashable, None] = {}

    def __len__(self) -> int:
        return len(self._blocks)

    def admit(self, blocks: Sequence[Hashable]) -> int:
        """Return how many of a prompt's leading blocks are held, then hold all of its blocks.

        A later block without those before it is of no use, as its content depends on them.
        """
        hits = 0
        for block in blocks:
            if block not in self._blocks:
                break
            hits += 1
        # From the last to the first, so that ends of prompts are forgotten before their beginnings.
        for block in reversed(blocks):
            self._blocks.pop(block, None)
            self._blocks[block] = None
        if self._capacity is not None:
            while len(self._blocks) > self._capacity:
                del self._blocks[next(iter(self._blocks))]
        return hits
