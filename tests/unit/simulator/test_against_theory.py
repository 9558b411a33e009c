"""The simulator against queueing theory, and against the step-time model that its engines are made of.

An engine whose steps all take the same time and that ignores prompts is a queue with as many servers as it may run
sequences. Answers of geometric length make its service all but exponential.

Each figure is the mean over seeds; its deviation from theory is tested in standard errors over those seeds.
"""

import math

import numpy as np
import pytest

from modelyard.core.load import LoadShape
from modelyard.simulator.run import Simulation
from modelyard.simulator.scenario import Engine
from tests.unit.simulator.play import LLAMA_8B, Script, closed_loop, make_arrivals, make_scenario, make_step

STEP = 0.0005
"""Seconds."""
MEAN_TOKENS = 400
SEEDS = 24
REQUESTS = 15_000
WARM_UP = 1_000
"""Requests at the start, when the queue is still short, that do not count."""
CRITICAL = 4.0
"""Standard errors: exceeded by chance by one test in 16,000."""


def geometric(chance, count):
    return chance.geometric(1 / MEAN_TOKENS, count)


def constant(chance, count):
    return np.full(count, MEAN_TOKENS)


def waits(utilisation: float, servers: int, seed: int, *, lengths=geometric, replicas: int = 1):
    """Seconds that requests wait before their first step, of one run."""
    chance = np.random.default_rng([seed, servers, replicas])
    rate = utilisation * servers * replicas / (MEAN_TOKENS * STEP)
    times = np.cumsum(chance.exponential(1 / rate, REQUESTS))
    scenario = make_scenario(
        make_arrivals(times, 1, lengths(chance, REQUESTS)),
        make_step(fixed=STEP),
        max_sequences=servers,
        initial=replicas,
        seed=seed,
    )
    simulation = Simulation(scenario, Script([replicas], interval=1e6))
    simulation.play()
    requests = simulation.fleet.requests
    return (requests["first"] - requests["arrival"] - STEP)[WARM_UP:]


def z_score(values, expected: float) -> float:
    values = np.asarray(values)
    return float((values.mean() - expected) / (values.std(ddof=1) / math.sqrt(len(values))))


def erlang_c(servers: int, utilisation: float) -> float:
    """Probability that all servers are busy (https://en.wikipedia.org/wiki/Erlang_(unit)#Erlang_C_formula)."""
    offered = servers * utilisation
    top = offered**servers / math.factorial(servers) / (1 - utilisation)
    return top / (sum(offered**n / math.factorial(n) for n in range(servers)) + top)


def exponential_wait(servers: int, utilisation: float) -> float:
    return erlang_c(servers, utilisation) * MEAN_TOKENS * STEP / (servers * (1 - utilisation))


@pytest.mark.parametrize("utilisation", [0.5, 0.8])
def test_one_server_with_exponential_service(utilisation):
    # Pollaczek and Khinchine: the square of a geometric length is on average mean^2 * (2 - 1/mean).
    second = (MEAN_TOKENS * STEP) ** 2 * (2 - 1 / MEAN_TOKENS)
    expected = utilisation / (MEAN_TOKENS * STEP) * second / (2 * (1 - utilisation))
    assert abs(z_score([waits(utilisation, 1, seed).mean() for seed in range(SEEDS)], expected)) < CRITICAL


@pytest.mark.parametrize("utilisation", [0.5, 0.8])
def test_one_server_with_constant_service(utilisation):
    expected = utilisation * MEAN_TOKENS * STEP / (2 * (1 - utilisation))
    means = [waits(utilisation, 1, seed, lengths=constant).mean() for seed in range(SEEDS)]
    assert abs(z_score(means, expected)) < CRITICAL


@pytest.mark.parametrize(("servers", "utilisation"), [(2, 0.7), (8, 0.8), (32, 0.9)])
def test_many_servers_with_exponential_service(servers, utilisation):
    runs = [waits(utilisation, servers, seed) for seed in range(SEEDS)]
    # Whoever finds a server free waits for the end of the step that the others are in: less than one.
    queued = [(run > STEP).mean() for run in runs]
    assert abs(z_score(queued, erlang_c(servers, utilisation))) < CRITICAL
    means = [np.where(run > STEP, run, 0.0).mean() for run in runs]
    assert abs(z_score(means, exponential_wait(servers, utilisation))) < CRITICAL


def test_the_tests_above_would_see_a_server_more_or_less():
    runs = [waits(0.8, 8, seed) for seed in range(SEEDS)]
    queued = [(run > STEP).mean() for run in runs]
    for servers in (7, 9):
        assert abs(z_score(queued, erlang_c(servers, 0.8 * 8 / servers))) > 3 * CRITICAL


def test_least_requests_is_between_one_queue_and_a_queue_for_each_at_random():
    """No closed form is known; it cannot beat one common queue, and beats random routing."""
    together = np.mean([waits(0.8, 1, seed, replicas=4).mean() for seed in range(SEEDS)])
    assert exponential_wait(4, 0.8) < together < exponential_wait(1, 0.8)


SHAPES = [LoadShape(914, 155), LoadShape(1000, 1000), LoadShape(4000, 200, 0.5), LoadShape(100, 100)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("clients", [1, 4, 16, 32])
def test_closed_loop_agrees_with_the_step_time_model(shape, clients):
    """At the batch that ran; less its own prompt, which the model spreads over a sequence's tokens, and none sees.

    Prompts take less than a third of the time here. Where they take more, they come in bunches, and the scheduler's own
    steps to a first token may take longer than the law says; then they count.
    """
    engine = Engine(LLAMA_8B, cache_tokens=4_000_000)
    seen = closed_loop(engine, shape, clients)
    batch = max(seen.batch, 1.0)
    own = LLAMA_8B.prefill(shape.input_tokens, shape.input_tokens * shape.cached_share) / shape.output_tokens
    assert seen.inter_token == pytest.approx(LLAMA_8B.inter_token_latency(shape, batch) - own, rel=0.03)
    assert seen.first_token == pytest.approx(LLAMA_8B.time_to_first_token(shape, batch), rel=0.03)


@pytest.mark.parametrize("clients", [64, 150])
def test_closed_loop_with_a_large_batch_and_long_answers(clients):
    shape = LoadShape(1000, 1000)
    seen = closed_loop(Engine(LLAMA_8B, cache_tokens=4_000_000), shape, clients, rounds=15)
    assert seen.inter_token == pytest.approx(LLAMA_8B.inter_token_latency(shape, seen.batch), rel=0.03)
    assert seen.first_token == pytest.approx(LLAMA_8B.time_to_first_token(shape, seen.batch), rel=0.03)


def test_experts_windows_and_stages_enter_the_step_as_the_model_has_them():
    step = make_step(
        fixed=0.004,
        experts=0.02,
        expert_share=0.05,
        per_sequence=2e-5,
        per_context_token=1e-7,
        prefill_fixed=0.01,
        prefill_token=2e-5,
        prefill_token_squared=1e-9,
        first_token=LLAMA_8B.first_token,
        windowed_share=0.5,
        window=1024.0,
        parallel_prefill=2.0,
        inter_token_factor=1.2,
        first_token_factor=1.1,
    )
    shape = LoadShape(2000, 500)
    seen = closed_loop(Engine(step, cache_tokens=4_000_000), shape, 20)
    own = 1.2 * step.prefill(2000) / 500 / 2
    assert seen.inter_token == pytest.approx(step.inter_token_latency(shape, seen.batch) - own, rel=0.03)
    assert seen.first_token == pytest.approx(step.time_to_first_token(shape, seen.batch), rel=0.03)
