"""Sends planned requests at their times and records what comes back."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aiohttp

from dev.loadgen.records import RequestRecord
from dev.loadgen.schedule import PlannedRequest
from dev.loadgen.stream import StreamError, StreamTail

TOKEN_ID = 100
"""The token that prompts are made of. Any id of the model's vocabulary will do; a list of ids is the one form
of prompt whose size in tokens is exact without the model's tokenizer."""

DEFAULT_TIMEOUT_S = 600.0
"""Time for one request, waiting for a sleeping model included: the gateway's default for hold and for
answer."""

ERROR_BODY_BYTES = 200
"""How much of an error's body is kept with the record."""


@dataclass(slots=True)
class Progress:
    """Counts of a run, current while it runs."""

    sent: int = 0
    answered: int = 0
    lost: int = 0

    @property
    def in_flight(self) -> int:
        """Requests that wait for their answer or receive it."""
        return self.sent - self.answered - self.lost


class LoadGenerator:
    """Plays requests against `{url}/v1/completions`, streaming.

    `run` may be called once. `progress` may be read by others of the event loop meanwhile.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.progress = Progress()
        self._endpoint = url.rstrip("/") + "/v1/completions"
        self._model = model
        self._timeout_s = timeout_s
        self._headers = dict(headers or {})
        self._start = 0.0

    async def run(self, planned: Sequence[PlannedRequest]) -> list[RequestRecord]:
        """Send every request at its time, wait for all answers, and return the records in order.

        No answer raises: what went wrong stands in the record. If cancelled, requests under way are cancelled
        too.
        """
        records = [
            RequestRecord(index, request.at_s, request.prompt_tokens, request.output_tokens)
            for index, request in enumerate(planned)
        ]
        # No limit on connections: a pool that is full would turn the open loop into a closed one.
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, headers=self._headers) as session,
            asyncio.TaskGroup() as group,
        ):
            self._start = time.monotonic()
            for record in records:
                # Deadlines are absolute, so lateness of one request does not move the next ones.
                delay_s = record.scheduled_s - self._now()
                if delay_s > 0:
                    await asyncio.sleep(delay_s)
                group.create_task(self._play(session, record))
        return records

    def _now(self) -> float:
        return time.monotonic() - self._start

    async def _play(self, session: aiohttp.ClientSession, record: RequestRecord) -> None:
        record.sent_s = self._now()
        self.progress.sent += 1
        try:
            record.error = await self._exchange(session, record)
        except (aiohttp.ClientError, ConnectionError) as error:
            record.error = f"{type(error).__name__}: {error}"
        except TimeoutError:
            record.error = f"no complete answer within {self._timeout_s:g} s"
        if record.error is None:
            self.progress.answered += 1
        else:
            self.progress.lost += 1

    async def _exchange(self, session: aiohttp.ClientSession, record: RequestRecord) -> str | None:
        """Send one request, fill its record, and return why it is lost, if it is."""
        tail = StreamTail()
        async with session.post(self._endpoint, json=self._body(record)) as response:
            record.headers_s = self._now()
            record.status = response.status
            if response.status != 200:
                body = await response.text(errors="replace")
                return f"HTTP {response.status}: {body[:ERROR_BODY_BYTES]}"
            async for chunk in response.content.iter_any():
                if record.first_byte_s is None:
                    record.first_byte_s = self._now()
                tail.feed(chunk)
        record.done_s = self._now()
        try:
            prompt, output = tail.usage()
        except StreamError as error:
            return str(error)
        record.counted_prompt_tokens, record.counted_output_tokens = prompt, output
        if (prompt, output) != (record.prompt_tokens, record.output_tokens):
            return (
                f"usage says {prompt} prompt and {output} output tokens instead of "
                f"{record.prompt_tokens} and {record.output_tokens}"
            )
        return None

    def _body(self, record: RequestRecord) -> dict[str, object]:
        return {
            "model": self._model,
            "prompt": [TOKEN_ID] * record.prompt_tokens,
            "max_tokens": record.output_tokens,
            # vLLM's extension: the answer has exactly the recorded length, whatever the model would say.
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
