"""An open-loop load generator: plays recorded arrivals at exact times against an OpenAI API.

Open loop means that a slow server does not slow the senders down: a request goes out when the trace says so,
whatever became of the ones before it. `python -m dev.loadgen --help` is the command line.
"""

from dev.loadgen.player import LoadGenerator, Progress
from dev.loadgen.records import Percentiles, RequestRecord, Summary, summarise, write_records
from dev.loadgen.schedule import PlannedRequest, plan_requests

__all__ = [
    "LoadGenerator",
    "Percentiles",
    "PlannedRequest",
    "Progress",
    "RequestRecord",
    "Summary",
    "plan_requests",
    "summarise",
    "write_records",
]
