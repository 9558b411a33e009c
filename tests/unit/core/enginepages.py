"""Pages of metrics that an engine would serve, made from one that vLLM 0.32 served."""

import math
import re
from functools import partial
from pathlib import Path
from statistics import NormalDist

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


def fill_buckets(page: str, name: str, share_below, count: float) -> str:
    """The page with another histogram `name`: so many values, of which a share is at or below each edge."""
    pattern = rf'^(vllm:{name}_bucket\{{[^\n]*le="([^"]+)"[^\n]*\}}) \S+$'
    page, edges = re.subn(
        pattern,
        lambda found: f"{found[1]} {count * share_below(float(found[2]))!r}",
        page,
        flags=re.MULTILINE,
    )
    assert edges > 1, f"the fixture has no histogram {name}"
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
        spread: float = 0.2,
    ) -> None:
        self.batch = batch
        self.inter_token = inter_token
        self.first_token = first_token
        self.input_tokens = input_tokens
        self.output_tokens = output_tokens
        self.cached = cached
        self.queued = queued
        self.spread = spread
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

    def share_below(self, mean: float, limit: float) -> float:
        """Latencies are log-normal, with the mean that was given and `spread`, the deviation of the logarithm."""
        return NormalDist().cdf((math.log(limit / mean) + self.spread**2 / 2) / self.spread)

    def page(self) -> str:
        """What it says now."""
        steps = self._seconds / self.inter_token
        tokens = steps * self.batch
        finished = tokens / self.output_tokens
        prompts = finished * self.input_tokens
        page = make_page(
            num_requests_running=self.batch,
            num_requests_waiting=self.waiting,
            inter_token_latency_seconds_created=self.created,
            inter_token_latency_seconds_sum=tokens * self.inter_token,
            inter_token_latency_seconds_count=tokens,
            iteration_tokens_total_count=steps,
            time_to_first_token_seconds_sum=finished * self.first_token,
            time_to_first_token_seconds_count=finished,
            request_time_per_output_token_seconds_sum=finished * self.inter_token,
            request_queue_time_seconds_sum=finished * self.queued,
            request_prompt_tokens_sum=prompts,
            request_generation_tokens_sum=tokens,
            request_generation_tokens_count=finished,
            prefix_cache_queries=prompts,
            prefix_cache_hits=prompts * self.cached,
        )
        for name, mean in (
            ("time_to_first_token_seconds", self.first_token),
            ("request_time_per_output_token_seconds", self.inter_token),
        ):
            page = fill_buckets(page, name, partial(self.share_below, mean), finished)
        return page
