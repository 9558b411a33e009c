"""Recorded traffic for the load generator and the demo, and how to read it."""

from dev.traces.azure import CONVERSATION_2023, Arrival, read_trace, select_window

__all__ = ["CONVERSATION_2023", "Arrival", "read_trace", "select_window"]
