"""What was used and held in one hour, in dollars on two bases.

Allocation: what a deployment's accelerators cost in that hour, used or not, shared out to those who used it by the work
of their tokens. Where nobody did, it stays with the deployment. Marginal: the same, of the part of the hour's capacity
that the requests took. A provider's tokens cost the same on both.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from modelyard.core.ledger.usage import NOTHING, Use
from modelyard.core.routing import EXTERNAL_PREFIX
from modelyard.core.spend import SpendKey

PROMPT_WORK, CACHED_WORK, COMPLETION_WORK = 1.0, 0.25, 4.0
"""Work of a token, relative to one of a prompt: the ratio of OpenAI's prices of GPT-4.1, 2.00 to 0.50 to 8.00 dollars
per million (https://openai.com/api/pricing, April 2025). A prompt's tokens are computed together, an answer's one by
one; cached ones are only read."""


@dataclass(frozen=True, slots=True)
class Charged:
    """What one key used, with a provider's charge for it."""

    use: Use
    dollars: float = 0.0
    """US dollars, estimates included; 0 for own accelerators, whose hours are shared out at the end."""
    estimated: float = 0.0
    unpriced: bool = False
    """Whether some of it has no price."""

    def __add__(self, other: "Charged") -> "Charged":
        """Return the sum."""
        return Charged(
            self.use + other.use,
            self.dollars + other.dollars,
            self.estimated + other.estimated,
            self.unpriced or other.unpriced,
        )


@dataclass(frozen=True, slots=True)
class Held:
    """Accelerators that the pods of one deployment held."""

    hours: float = 0.0
    """Accelerator-hours."""
    dollars: float = 0.0
    unpriced: float = 0.0
    """Of the hours, those whose price is not known."""
    room: float = 0.0
    """Requests that the pods could have answered; 0: not known."""

    def __add__(self, other: "Held") -> "Held":
        """Return the sum."""
        return Held(
            self.hours + other.hours,
            self.dollars + other.dollars,
            self.unpriced + other.unpriced,
            self.room + other.room,
        )


@dataclass(frozen=True, slots=True)
class Line:
    """What one key used and spent in some time. Settled: it does not change any more."""

    key: SpendKey
    use: Use = NOTHING
    hours: float = 0.0
    """Accelerator-hours that were shared out to it."""
    dollars: float = 0.0
    """US dollars on the allocation basis, as far as prices are known, estimates included."""
    marginal: float = 0.0
    """US dollars on the marginal basis."""
    estimated: float = 0.0
    """Of `dollars`, those for answers that ended before they told their usage."""
    unpriced: bool = False
    """Whether some of it has no price, so that the dollars are not all."""
    unmeasured: bool = False
    """The same of the marginal basis: the capacity of the accelerators is not known."""

    @property
    def kind(self) -> Literal["Provider", "Own"]:
        """Whether it is paid to a provider or for own accelerators."""
        return "Provider" if self.key.target.startswith(EXTERNAL_PREFIX) else "Own"

    def __add__(self, other: "Line") -> "Line":
        """Return the sum, under the key of this line."""
        return Line(
            self.key,
            self.use + other.use,
            self.hours + other.hours,
            self.dollars + other.dollars,
            self.marginal + other.marginal,
            self.estimated + other.estimated,
            self.unpriced or other.unpriced,
            self.unmeasured or other.unmeasured,
        )


def settle(uses: Mapping[SpendKey, Charged], held: Mapping[str, Held]) -> tuple[Line, ...]:
    """Return the lines of an hour, sorted by key. Their dollars add up to what was held and charged."""
    lines = [
        Line(key, item.use, 0.0, item.dollars, item.dollars, item.estimated, item.unpriced, item.unpriced)
        for key, item in uses.items()
        if key.target.startswith(EXTERNAL_PREFIX)
    ]
    own: dict[str, dict[SpendKey, Use]] = {deployment: {} for deployment in held}
    for key, item in uses.items():
        if not key.target.startswith(EXTERNAL_PREFIX):
            own.setdefault(key.target, {})[key] = item.use
    for deployment, shares in own.items():
        lines += _share_out(deployment, shares, held.get(deployment))
    return tuple(sorted(lines, key=lambda line: line.key))


def sum_lines(lines: Iterable[Line]) -> tuple[Line, ...]:
    """Return one line for each key, sorted by key."""
    sums: dict[SpendKey, Line] = {}
    for line in lines:
        before = sums.get(line.key)
        sums[line.key] = line if before is None else before + line
    return tuple(sums[key] for key in sorted(sums))


def work(use: Use) -> float:
    """Return the work of tokens, in tokens of a prompt."""
    cached = min(use.cached, use.prompt)
    return (
        (use.prompt - cached) * PROMPT_WORK
        + cached * CACHED_WORK
        + use.completion * COMPLETION_WORK
        + estimated_work(use)
    )


def estimated_work(use: Use) -> float:
    """Return the part of the work that is an estimate."""
    return use.estimated_prompt * PROMPT_WORK + use.estimated_completion * COMPLETION_WORK


def _share_out(deployment: str, shares: Mapping[SpendKey, Use], held: Held | None) -> Iterable[Line]:
    if held is None:
        # Its accelerators were not seen: what was used is known, and what it cost is not.
        for key, use in shares.items():
            yield Line(key, use, unpriced=True, unmeasured=True)
        return
    unpriced = held.unpriced > 0
    total = sum(work(use) for use in shares.values())
    if total == 0:
        namespace = deployment.partition("/")[0]
        yield Line(
            SpendKey("", namespace, "", deployment), Use(), held.hours, held.dollars, unpriced=unpriced
        )
        for key, use in shares.items():
            yield Line(key, use)
        return
    requests = sum(use.requests for use in shares.values())
    busy = min(requests / held.room, 1.0) if held.room else 0.0
    for key, use in shares.items():
        part = work(use) / total
        dollars = held.dollars * part
        yield Line(
            key,
            use,
            held.hours * part,
            dollars,
            dollars * busy,
            held.dollars * estimated_work(use) / total,
            unpriced,
            unpriced or not held.room,
        )
