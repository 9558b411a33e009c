"""Reading the fields of a `config.json` that nobody vouches for."""

import math
from collections.abc import Mapping
from typing import Any, Final

LARGEST: Final = 1_000_000_000
"""No dimension of a published model comes near; keeps sums of hostile numbers small."""

_LARGEST_FACTOR: Final = 10_000.0
"""No published context is stretched further."""


class UnreadableConfigError(Exception):
    """A field is missing or no sensible number; the message names it."""


class ConfigFields:
    """The fields of one configuration, with its family's defaults below them.

    An explicit null counts as absent and hides the default.
    """

    def __init__(self, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        self._config = config
        self._defaults = defaults

    def get(self, *names: str) -> Any:
        """Return the first of the fields that is set, else the first default."""
        for name in names:
            if self._config.get(name) is not None:
                return self._config[name]
        if any(name in self._config for name in names):
            return None
        return next((self._defaults[name] for name in names if name in self._defaults), None)

    def find_integer(self, *names: str, least: int = 1) -> int | None:
        """Return a whole number by the first of its names that is set; None where none is."""
        value = self.get(*names)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise UnreadableConfigError(f"{names[0]} is no whole number")
        if not least <= value <= LARGEST:
            raise UnreadableConfigError(f"{names[0]} is not from {least} to {LARGEST}")
        return value

    def integer(self, *names: str, least: int = 1) -> int:
        """Return a whole number that must be there."""
        value = self.find_integer(*names, least=least)
        if value is None:
            raise UnreadableConfigError(f"{names[0]} is missing")
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        """Return a truth value."""
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise UnreadableConfigError(f"{name} is neither true nor false")
        return value

    def texts(self, name: str) -> list[str] | None:
        """Return a list of strings; None where it is absent."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise UnreadableConfigError(f"{name} is no list of names")
        return value

    def integers(self, name: str) -> list[int]:
        """Return a list of whole numbers; empty where it is absent."""
        value = self.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(type(item) is int for item in value):
            raise UnreadableConfigError(f"{name} is no list of whole numbers")
        return value

    def mapping(self, *names: str) -> Mapping[str, Any]:
        """Return a nested object; empty where it is absent."""
        value = self.get(*names)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise UnreadableConfigError(f"{names[0]} is no object")
        return value

    def factor(self, name: str) -> float | None:
        """Return a positive number; None where it is absent."""
        value = self.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UnreadableConfigError(f"{name} is no number")
        if not (0 < value <= _LARGEST_FACTOR and math.isfinite(value)):
            raise UnreadableConfigError(f"{name} is not above 0 and at most {_LARGEST_FACTOR:.0f}")
        return float(value)


def shorten(value: object) -> str:
    """Return a foreign text for a message: cut to what one line holds, without control characters."""
    text = value if isinstance(value, str) else type(value).__name__
    return "".join(character for character in text[:60] if character.isprintable())
