"""Durations and quantities as Kubernetes writes them."""

import re
from decimal import Decimal
from typing import Annotated

from pydantic import Field, StringConstraints

DURATION_PATTERN = r"^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,7}s)?$"
"""A duration in the form that CEL's `duration()` and Go understand: hours, minutes and whole seconds."""

Duration = Annotated[str, StringConstraints(pattern=DURATION_PATTERN, min_length=2, max_length=20)]
Latency = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,6}(ms|s)$", min_length=2, max_length=8)]
"""A latency in whole milliseconds or seconds, such as `50ms` or `2s`."""
Quantity = Annotated[
    str,
    StringConstraints(
        pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$", min_length=1, max_length=32
    ),
]
Price = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,6}(\.[0-9]{1,6})?$", min_length=1, max_length=13)]
"""US dollars as a decimal string: an API never carries money as a float."""
Rate = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,6}(\.[0-9]{1,6})?$", min_length=1, max_length=13)]
"""Requests in a minute, as a decimal string."""

Numbers = Annotated[
    dict[
        Annotated[str, StringConstraints(min_length=1, max_length=64)],
        Annotated[str, StringConstraints(pattern=r"^-?[0-9]+(\.[0-9]+)?$", max_length=32)],
    ],
    Field(max_length=16),
]
"""What a decision was worked out from, by name: decimal strings, each in the unit that its name says."""

PerMinute = Annotated[int, Field(ge=1, le=1_000_000_000)]
"""Requests or tokens per minute. The largest is more than any fleet answers, and fits a signed 32-bit number."""

Quality = Annotated[
    str, StringConstraints(pattern=r"^(0(\.[0-9]{1,4})?|1(\.0{1,4})?)$", min_length=1, max_length=6)
]
"""How good answers are, from 0 to 1 as a decimal string. What 1 stands for is the installation's choice."""

Money = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}(\.[0-9]{1,6})?$", min_length=1, max_length=16)]
"""US dollars of a whole organisation, as a decimal string."""
Share = Annotated[
    str, StringConstraints(pattern=r"^(0\.[0-9]{1,4}|1(\.0{1,4})?)$", min_length=1, max_length=6)
]
"""A part of a whole as a decimal string, such as `0.8`; 1 is the whole."""

_UNIT_SECONDS = {"h": 3600, "m": 60, "s": 1}
_SUFFIXES = {
    "n": Decimal("0.000000001"),
    "u": Decimal("0.000001"),
    "m": Decimal("0.001"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}
"""Of quantities, as the API server writes them (https://pkg.go.dev/k8s.io/apimachinery/pkg/api/resource#Quantity)."""


def parse_duration(text: str) -> int:
    """Return a duration such as `1h30m` in seconds.

    Raises ValueError for any other form.
    """
    if len(text) < len("0s") or not re.fullmatch(DURATION_PATTERN, text):
        raise ValueError(f"{text!r} is not a duration: write it like 90s, 10m or 1h30m")
    return sum(int(number) * _UNIT_SECONDS[unit] for number, unit in re.findall(r"([0-9]+)([hms])", text))


def parse_latency(text: str) -> float:
    """Return a latency such as `50ms` in seconds.

    Raises ValueError for any other form.
    """
    match = re.fullmatch(r"([0-9]{1,6})(ms|s)", text)
    if not match:
        raise ValueError(f"{text!r} is not a latency: write it like 50ms or 2s")
    return int(match[1]) / (1000 if match[2] == "ms" else 1)


def parse_quantity(text: str) -> Decimal:
    """Return a Kubernetes quantity such as `80Gi` or `500m` in its base unit.

    Raises ValueError for any other form.
    """
    # Two digits of exponent are plenty: the API server stores no number beyond 2^63.
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(?:[eE]([+-]?[0-9]{1,2})|([A-Za-z]*))", text, re.ASCII)
    if not match or (match[3] and match[3] not in _SUFFIXES):
        raise ValueError(f"{text!r} is not a quantity: write it like 2, 500m or 16Gi")
    if match[2]:
        return Decimal(match[1]).scaleb(int(match[2]))
    return Decimal(match[1]) * _SUFFIXES.get(match[3], Decimal(1))
