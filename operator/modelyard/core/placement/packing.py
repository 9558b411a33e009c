"""Accelerators on nodes: what is free, and which replicas fit.

A replica takes all its accelerators on one node, so free accelerators of two nodes do not add up.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from modelyard.core.placement.problem import NodeGroup, PlacementProblem

MAX_PATTERN_NODE = 16
"""Accelerators of the largest node whose packings are listed: 16 is the most that a current GPU server has. There
are a few dozen packings then, and they grow fast beyond."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """Nodes that are alike to the solvers: same pools and, where spot replicas may run, same zone."""

    pools: frozenset[str]
    zone: str
    free: tuple[int, ...]
    """Usable accelerators of each node, smallest first."""
    running: tuple[Mapping[tuple[str, str], int], ...]
    """Replicas on each node; empty if no position is known."""


def count_fits(sizes: Iterable[int], shelves: Sequence[Shelf] | None) -> dict[tuple[int, int], int]:
    """Return how many replicas of each size an empty shelf holds, by (shelf, size)."""
    rooms = [Room(shelf.free) for shelf in shelves or ()]
    return {(i, size): room.fits(size) for size in set(sizes) for i, room in enumerate(rooms)}


@dataclass(frozen=True, slots=True)
class Item:
    """Replicas of one candidate that are to be on a shelf."""

    key: str
    candidate: str
    size: int
    """Accelerators of one."""
    count: int
    priority: int


class Room:
    """Free accelerators of nodes, as the number of nodes for each count of free accelerators."""

    __slots__ = ("_nodes",)

    def __init__(self, free: Iterable[int]) -> None:
        counts: dict[int, int] = {}
        for amount in free:
            counts[amount] = counts.get(amount, 0) + 1
        self._nodes = counts

    def copy(self) -> "Room":
        """Return an independent copy."""
        room = Room(())
        room._nodes = dict(self._nodes)
        return room

    @property
    def largest(self) -> int:
        """Most free accelerators of one node."""
        return max((amount for amount, nodes in self._nodes.items() if nodes), default=0)

    @property
    def total(self) -> int:
        """Free accelerators of all nodes."""
        return sum(amount * nodes for amount, nodes in self._nodes.items())

    def fits(self, size: int) -> int:
        """Return how many replicas of this size fit."""
        return sum(nodes * (amount // size) for amount, nodes in self._nodes.items())

    def take(self, size: int, count: int) -> int:
        """Place up to `count` replicas on the fullest nodes that have room; return how many were placed."""
        placed = 0
        for amount in sorted(self._nodes):
            per_node = amount // size
            if per_node == 0:
                continue
            if placed == count:
                break
            full, rest = divmod(count - placed, per_node)
            filled = min(full, self._nodes[amount])
            self._move(amount, amount - per_node * size, filled)
            placed += filled * per_node
            if rest and placed < count and self._nodes[amount]:
                part = min(rest, count - placed)
                self._move(amount, amount - part * size, 1)
                placed += part
        return placed

    def seize(self, accelerators: int) -> None:
        """Take accelerators wherever they are: for replicas that run, though it is not known where."""
        while accelerators > 0 and (largest := self.largest) > 0:
            part = min(largest, accelerators)
            self._move(largest, largest - part, 1)
            accelerators -= part

    def _move(self, old: int, new: int, nodes: int) -> None:
        if nodes:
            self._nodes[old] -= nodes
            self._nodes[new] = self._nodes.get(new, 0) + nodes


def shelve(problem: PlacementProblem) -> tuple[Shelf, ...] | None:
    """Put nodes that are alike together, in an order that does not depend on the order of the problem."""
    if problem.groups is None:
        return None
    spot_pools = {c.pool for demand in problem.demands for c in demand.candidates if c.spot}
    together: dict[tuple[tuple[str, ...], str], list[NodeGroup]] = {}
    for group in sorted(problem.groups, key=lambda each: each.name):
        zone = group.zone if group.pools & spot_pools else ""
        together.setdefault((tuple(sorted(group.pools)), zone), []).append(group)
    return tuple(_shelf(pools, zone, groups) for (pools, zone), groups in sorted(together.items()))


def _shelf(pools: tuple[str, ...], zone: str, groups: list[NodeGroup]) -> Shelf:
    if not any(group.running for group in groups):
        free = sorted(amount for group in groups for amount in group.free if amount > 0)
        return Shelf(frozenset(pools), zone, tuple(free), ())
    nodes = [
        (amount, sorted((group.running[i] if i < len(group.running) else {}).items()))
        for group in groups
        for i, amount in enumerate(group.free)
        if amount > 0
    ]
    nodes.sort()
    return Shelf(
        frozenset(pools), zone, tuple(free for free, _ in nodes), tuple(dict(held) for _, held in nodes)
    )


def pack(shelf: Shelf, items: Sequence[Item]) -> tuple[dict[tuple[str, str], int], Room]:
    """Really put replicas on nodes.

    Returns how many of each (key, candidate) fit, and the room that is left. Larger replicas go first, each to the
    fullest node that has room (best fit decreasing): where each size divides the next larger one, all fit that can.
    If not all fit, higher priority goes first, and over running replicas of lower priority.
    """
    placed, left = _pack_class(list(shelf.free), shelf, items)
    if any(placed[item.key, item.candidate] < item.count for item in items):
        placed, left = {}, list(shelf.free)
        for priority in sorted({item.priority for item in items}, reverse=True):
            chosen = [item for item in items if item.priority == priority]
            more, left = _pack_class(left, shelf, chosen)
            placed |= more
    return placed, Room(left)


def _pack_class(
    left: list[int], shelf: Shelf, items: Sequence[Item]
) -> tuple[dict[tuple[str, str], int], list[int]]:
    placed: dict[tuple[str, str], int] = {}
    ordered = sorted(items, key=lambda item: (-item.size, item.key, item.candidate))
    for item in ordered:
        kept = 0
        for node, running in enumerate(shelf.running):
            stay = min(running.get((item.key, item.candidate), 0), item.count - kept)
            if stay > 0:
                stay = min(stay, left[node] // item.size)
                left[node] -= stay * item.size
                kept += stay
        placed[item.key, item.candidate] = kept
    for item in ordered:
        missing = item.count - placed[item.key, item.candidate]
        if missing <= 0:
            continue
        for node in sorted(range(len(left)), key=left.__getitem__):
            fit = min(missing, left[node] // item.size)
            left[node] -= fit * item.size
            missing -= fit
            if missing == 0:
                break
        placed[item.key, item.candidate] = item.count - missing
    return placed, left


def divides(sizes: Sequence[int]) -> bool:
    """Return whether each size divides the next larger one."""
    return all(large % small == 0 for small, large in pairwise(sorted(set(sizes))))


def list_patterns(accelerators: int, sizes: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the packings of one node to which nothing can be added: how many of each size (largest first)."""
    found: list[tuple[int, ...]] = []

    def extend(index: int, left: int, chosen: tuple[int, ...]) -> None:
        if index == len(sizes):
            if left < min(sizes):
                found.append(chosen)
            return
        for count in range(left // sizes[index], -1, -1):
            extend(index + 1, left - count * sizes[index], (*chosen, count))

    extend(0, accelerators, ())
    return found
