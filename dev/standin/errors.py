"""Refusals in vLLM's shape, and the checks of single fields that lead to them."""

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]


class RequestError(Exception):
    """A refusal, in vLLM's error shape."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.param = param

    def body(self) -> Json:
        """Return the response's JSON."""
        return error_body(self.status, self.kind, str(self), self.param)


def error_body(status: int, kind: str, message: str, param: str | None = None) -> Json:
    """Return an error in vLLM's shape."""
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}


def bad_request(message: str, param: str | None = None) -> RequestError:
    """Return the refusal of a field."""
    return RequestError(400, "BadRequestError", message, param)


def read_integer(body: Mapping[str, object], name: str, default: int, minimum: int = 1) -> int:
    """Return an integer field, or the default if it is absent. Raises RequestError."""
    value = body.get(name)
    if value is None:
        return default
    if type(value) is not int or value < minimum:
        raise bad_request(f"{name} must be an integer of at least {minimum}, got {value!r}", name)
    return value


def read_flag(body: Mapping[str, object], name: str) -> bool:
    """Return a boolean field, False if it is absent. Raises RequestError."""
    value = body.get(name)
    if value is None:
        return False
    if type(value) is not bool:
        raise bad_request(f"{name} must be true or false", name)
    return value
