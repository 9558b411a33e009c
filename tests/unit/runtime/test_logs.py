"""The log as JSON objects: one for each record, with the object and the reason as fields of their own."""

import json
import logging

import pytest

from modelyard.runtime.logs import about, about_key, json_formatter


@pytest.fixture
def say():
    """Logs a record and returns it as a log store reads it."""

    def call(message, *arguments, **options):
        logger = logging.getLogger("modelyard.test")
        lines = []

        class Lines(logging.Handler):
            def emit(self, record):
                lines.append(self.format(record))

        handler = Lines()
        handler.setFormatter(json_formatter())
        logger.addHandler(handler)
        logger.warning(message, *arguments, **options)
        logger.removeHandler(handler)
        (line,) = lines
        assert "\n" not in line
        return json.loads(line)

    return call


def test_a_record_names_its_object_and_reason(say):
    record = say("Size of %s: %d", "team/llama", 3, extra=about("team/llama", reason="OfferedLoad"))
    time = record.pop("time")
    assert record == {
        "level": "WARNING",
        "logger": "modelyard.test",
        "message": "Size of team/llama: 3",
        "kind": "LLMDeployment",
        "namespace": "team",
        "object": "llama",
        "reason": "OfferedLoad",
    }
    assert time.endswith("Z")
    assert len(time) == len("2026-11-30T12:00:00Z")


def test_a_stack_trace_is_a_field(say):
    try:
        int("broken\nin two")
    except ValueError:
        record = say("Work failed", exc_info=True)
    assert record["exc_info"].startswith("Traceback (most recent call last):\n")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (about("h100", "AcceleratorClass"), {"kind": "AcceleratorClass", "object": "h100"}),
        (about_key("team/llama"), {"kind": "LLMDeployment", "namespace": "team", "object": "llama"}),
        (about_key("route:team/chat"), {"kind": "LLMRoute", "namespace": "team", "object": "chat"}),
    ],
    ids=["cluster-scoped", "deployment", "route"],
)
def test_what_a_record_is_about(fields, expected):
    assert fields == expected
