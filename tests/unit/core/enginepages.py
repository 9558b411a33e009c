"""Pages of metrics that an engine would serve, made from one that vLLM 0.32 served."""

import re
from pathlib import Path

FIXTURE = (Path(__file__).parents[2] / "fixtures" / "vllm-0.32-metrics.txt").read_text()

CREATED = 1_700_000_000.0
"""Unix seconds at which the engine of a page started, unless the page says otherwise."""


def make_page(*, engine: str = "0", **values: float) -> str:
    """The fixture with other values; the keywords are names of series less `vllm:`."""
    values = {"inter_token_latency_seconds_created": CREATED, **values}
    page = FIXTURE.replace('engine="0"', f'engine="{engine}"')
    for name, value in values.items():
        page, count = re.subn(
            rf"^(vllm:{name}(?:_total)?(?:\{{.*\}})?) \S+$", rf"\g<1> {value!r}", page, flags=re.MULTILINE
        )
        assert count == 1, f"the fixture has {count} series {name}"
    return page


class Engine:
    """An engine that works steadily: every second it adds to its counts what the batch and the latencies say."""

    def __init__(
        self,
        *,
        batch: float,
        inter_token: float,
        first_token: float = 0.2,
        input_tokens: float = 1000.0,
        output_tokens: float = 200.0,
        cached: float = 0.0,
        queued: float = 0.0,
    ) -> None:
        self.batch = batch
        self.inter_token = inter_token
        self.first_token = first_token
        self.input_tokens = input_tokens
        self.output_tokens = output_tokens
        self.cached = cached
        self.queued = queued
        self.waiting = 0
        self.created = CREATED
        self._seconds = 0.0

    def work(self, seconds: float) -> None:
        """Let time pass."""
        self._seconds += seconds

    def restart(self) -> None:
        """Count from zero."""
        self.created += self._seconds
        self._seconds = 0.0

    def page(self) -> str:
        """What it says now."""
        steps = self._seconds / self.inter_token
        tokens = steps * self.batch
        finished = tokens / self.output_tokens
        prompts = finished * self.input_tokens
        return make_page(
            num_requests_running=self.batch,
            num_requests_waiting=self.waiting,
            inter_token_latency_seconds_created=self.created,
            inter_token_latency_seconds_sum=tokens * self.inter_token,
            inter_token_latency_seconds_count=tokens,
            iteration_tokens_total_count=steps,
            time_to_first_token_seconds_sum=finished * self.first_token,
            time_to_first_token_seconds_count=finished,
            request_queue_time_seconds_sum=finished * self.queued,
            request_prompt_tokens_sum=prompts,
            request_generation_tokens_sum=tokens,
            request_generation_tokens_count=finished,
            prefix_cache_queries=prompts,
            prefix_cache_hits=prompts * self.cached,
        )
