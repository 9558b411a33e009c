"""The simulator against the engine stand-in in real time: a process, HTTP, and the same arrivals."""

import numpy as np
from scipy.stats import ks_2samp

from dev.loadgen.player import LoadGenerator
from dev.loadgen.schedule import PlannedRequest
from dev.standin.profiles import PROFILES
from modelyard.simulator.run import Simulation
from tests.unit.simulator.play import Script, make_arrivals, make_scenario, make_step, random_arrivals
from tests.unit.standin.helpers import read_until, standin_process

RATE = 3.0
"""Requests per second: prompts alone take a fifth of the time, and six sequences run on average."""
SECONDS = 40.0
MEDIAN = 0.10
"""Relative: how far medians may be apart."""
TAIL = 0.20
"""The same of 95th percentiles."""
DISTANCE = 0.15
"""Largest distance of the distribution functions (Kolmogorov and Smirnov). Two samples of 120 from one distribution
are further apart with probability 0.13, but these are no samples: arrivals and lengths are the same."""


async def test_latencies_are_distributed_as_in_real_time():
    profile = PROFILES["l4-8b"]
    arrivals = random_arrivals(RATE, SECONDS, seed=21, inputs=600, outputs=60)
    planned = [
        PlannedRequest(float(at), int(prompt), int(output))
        for at, prompt, output in zip(
            arrivals.time, arrivals.input_tokens.clip(1, 4000), arrivals.output_tokens, strict=True
        )
    ]
    arguments = ("--model", "org/model", "--served-model-name", "m")
    async with standin_process(*arguments, STANDIN_PROFILE=profile.name) as process:
        url = (await read_until(process, "listening on ")).rpartition(" ")[2]
        records = await LoadGenerator(url, "m").run(planned)
    assert all(record.answered for record in records)

    # The simulator gets the requests when they were really sent, which a busy machine delays.
    records.sort(key=lambda record: record.sent_s or 0.0)
    sent = make_arrivals(
        [record.sent_s for record in records],
        [record.prompt_tokens for record in records],
        [record.output_tokens for record in records],
    )
    step = make_step(
        fixed=profile.alpha_ms / 1e3,
        per_sequence=(profile.beta_ms - profile.gamma_ms) / 1e3,
        per_context_token=profile.gamma_ms / 1e3,
        prefill_token=profile.delta_ms / 1e3,
    )
    scenario = make_scenario(
        sent,
        step,
        cache_tokens=profile.kv_cache_tokens,
        max_sequences=profile.max_num_seqs,
        max_batched_tokens=profile.max_num_batched_tokens,
    )
    simulation = Simulation(scenario, Script([1]))
    simulation.play()
    requests = simulation.fleet.requests
    first = requests["first"] - requests["arrival"]
    several = requests["output"] > 1
    inter = ((requests["done"] - requests["first"])[several]) / (requests["output"][several] - 1)
    real_first = np.array([record.time_to_first_token_s for record in records])
    real_inter = np.array([record.inter_token_s for record in records if record.output_tokens > 1])
    for simulated, real in ((first, real_first), (inter, real_inter)):
        median, tail = np.quantile(simulated, [0.5, 0.95]) / np.quantile(real, [0.5, 0.95]) - 1
        assert abs(median) < MEDIAN
        assert abs(tail) < TAIL
        assert ks_2samp(simulated, real).statistic < DISTANCE
