import io
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import grimp
import pytest
from rich.console import Console

from benchmarks.autoscaling.agenda import Request, Results, chosen_rivals, expand, tune_job, verify
from benchmarks.autoscaling.estimate import seconds_of
from benchmarks.autoscaling.jobs import Job, WorkMissingError, play, summarise
from benchmarks.autoscaling.loads import build_days, build_scenario, fleet, servegen, servegen_factor
from benchmarks.autoscaling.page import Origin, render
from benchmarks.autoscaling.plots import plot_course, plot_frontier
from benchmarks.autoscaling.policies import (
    CLAIRVOYANT,
    NAMES,
    OURS,
    make_days_policy,
    make_policy,
    settings_of,
)
from benchmarks.autoscaling.run import choose, execute
from benchmarks.autoscaling.scenarios import Bars, Case, Effort, Load, load_cases, quick_cases
from benchmarks.autoscaling.store import Store, digest_of, sources
from benchmarks.autoscaling.summary import lines_of
from modelyard.simulator.clairvoyant import plan
from modelyard.simulator.fluidload import scale_fluid
from modelyard.simulator.rivals.catalogue import rival
from modelyard.simulator.run import run

ROOT = Path(__file__).parent.parent.parent.parent
EFFORT = Effort(seeds=1, steps=1, rounds=0, trials=0)
STEP = Case(
    name="tiny-step", title="A short step", load=Load(kind="step", before=1, at=30, duration=120), start=30,
    bars=Bars(drained_after_start=60, overshoot=1), default=EFFORT, full=EFFORT,
)  # fmt: skip
DAYS = Case(
    name="tiny-days", title="Twenty minutes", load=Load(kind="servegen", replicas=0.3, limit=1200), start=30,
    bars=Bars(attainment=0.99, to_clairvoyant=1.15, agreement=0.02),
    default=Effort(seeds=1, steps=1, rounds=0, trials=0, days=True), full=EFFORT,
)  # fmt: skip
POLICIES = (OURS, "static-peak", "hpa-gpu")


def quiet():
    return Console(file=io.StringIO())


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store.open(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def request_():
    return Request([STEP, DAYS], policies=POLICIES)


@pytest.fixture(scope="module")
def smoke(store, request_):
    """A whole run, which takes seconds: whoever changes its results works on a copy."""
    return execute(request_, store, quiet(), 2)


def test_a_smoke_run_does_everything(tmp_path, request_, smoke):
    request, results = request_, smoke
    verify(request, results)
    assert {job.kind for job in results.done} == {"curve", "tune", "play", "plan", "days"}
    assert results.worked == len(results.done)
    for case in request.cases:
        lines = lines_of(case, results)
        assert {line.policy for line in lines} == {CLAIRVOYANT, *POLICIES}
        plot_frontier(case, lines, results, tmp_path / "images" / f"{case.name}-frontier.svg")
        plot_course(case, results, tmp_path / "images" / f"{case.name}-course.svg")
    assert {line.policy for line in lines_of(DAYS, results, "days")} == {CLAIRVOYANT, *POLICIES}
    assert all(0 < path.stat().st_size < 200_000 for path in (tmp_path / "images").iterdir())
    page = render(request, results, Origin("a command", "2026-01-01", "a machine", 2, "No result."))
    assert "**No result.**" in page
    assert "### All 14 days, as a flow" in page


def test_a_second_run_does_only_what_is_missing(store, request_, smoke):
    lost = next(job for job in smoke.done if job.kind == "play" and job.policy == "hpa-gpu")
    store._path(lost, request_.case(lost.case), None).unlink()
    resumed = execute(request_, store, quiet(), 1)
    assert resumed.worked == 1
    # The same work gives the same figures; only its time differs.
    assert resumed.done.pop(lost) | {"seconds": 0} == smoke.done[lost] | {"seconds": 0}
    assert resumed.done == {job: result for job, result in smoke.done.items() if job != lost}


def test_a_result_is_kept_for_one_state_of_the_sources_and_one_scenario(tmp_path):
    store = Store.open(tmp_path / "cache")
    job = Job("play", STEP.name, "whole", 0, OURS)
    store.keep(job, STEP, None, {"cost": 1.0})
    assert store.load(job, STEP, None) == {"cost": 1.0}
    assert replace(store, own="other").load(job, STEP, None) is None
    assert replace(store, version="other").load(job, STEP, None) == {"cost": 1.0}
    rival = replace(job, policy="hpa-gpu")
    store.keep(rival, STEP, None, {"cost": 2.0})
    assert replace(store, version="other").load(rival, STEP, None) is None
    assert replace(store, own="other").load(rival, STEP, None) == {"cost": 2.0}
    assert store.load(replace(job, seed=1), STEP, None) is None
    assert store.load(job, STEP.model_copy(update={"start": 60}), None) is None
    assert store.load(job, STEP.model_copy(update={"title": "Other words"}), None) == {"cost": 1.0}
    assert [path.suffix for path in store.folder.iterdir()] == [".json"] * 2


def test_the_digest_covers_simulator_decision_benchmark_and_traces(tmp_path):
    names = {path.relative_to(ROOT).as_posix() for path in sources(ours=True)}
    assert {
        "operator/modelyard/simulator/run.py", "operator/modelyard/core/replicas.py",
        "operator/modelyard/core/scaling/rule.py", "benchmarks/autoscaling/jobs.py",
        "benchmarks/data/traces/m-large-10min.csv.gz", "dev/traces/azure-2023-conversation.csv.gz",
    } <= names  # fmt: skip
    others = {path.relative_to(ROOT).as_posix() for path in sources(ours=False)}
    assert names - others == {
        *(name for name in names if name.startswith("operator/modelyard/core/scaling/")),
        "operator/modelyard/core/decide.py", "operator/modelyard/core/replicas.py",
        "operator/modelyard/simulator/modelyard.py",
    }  # fmt: skip
    file = tmp_path / "a.py"
    file.write_text("1")
    before = digest_of([file])
    file.write_text("2")
    assert digest_of([file]) != before


def test_no_other_policy_runs_what_its_results_do_not_depend_on():
    """The digest of a rival's results leaves out our own decision, so nothing that rivals run may import it."""
    package = ROOT / "operator" / "modelyard"
    left_out = {
        ".".join(("modelyard", *path.relative_to(package).with_suffix("").parts))
        for path in {*sources(ours=True)} - {*sources(ours=False)}
    }
    graph = grimp.build_graph("modelyard")
    used = {"clairvoyant", "flow", "fluid", "run", "slices", "traceformats", "transforms", "rivals.catalogue"}
    for name in used:
        found = graph.find_upstream_modules(f"modelyard.simulator.{name}") & left_out
        assert not found, f"modelyard.simulator.{name} imports {', '.join(sorted(found))}"


def test_curves_come_first_then_what_is_at_hand_then_the_longest():
    def estimate(job):
        return float(job.seed)

    curve = Job("curve", "a", seed=1)
    short, long = Job("play", "a", "whole", 2, OURS), Job("play", "a", "whole", 9, OURS)
    same = Job("play", "a", "whole", 2, "hpa-gpu")
    assert choose([short, long, curve], None, estimate) is curve
    assert choose([short, long], None, estimate) is long
    assert choose([same, long], short, estimate) is same


def test_longer_work_is_estimated_longer():
    cases = load_cases()
    small = Job("play", "m-large-2", "lowest", 0, "hpa-gpu")
    assert seconds_of(small, cases["m-large-2"]) < seconds_of(
        replace(small, part="highest"), cases["m-large-2"]
    )
    large = Job("play", "m-large-50", "lowest", 0, "hpa-gpu")
    assert seconds_of(large, cases["m-large-50"]) > 10 * seconds_of(small, cases["m-large-2"])
    plan = Job("plan", "m-large-2", "lowest", 0, CLAIRVOYANT, steps=4, rounds=1)
    # 16 runs, of requests that are made once.
    assert seconds_of(plan, cases["m-large-2"]) > 5 * seconds_of(small, cases["m-large-2"])


def test_tuning_waits_for_the_curve_and_tuned_runs_for_the_tuning():
    request, results = Request([STEP], policies=POLICIES), Results()
    first = list(expand(request, results))
    assert not any(job.kind == "tune" for job in first)
    assert all(job.setting == 0 for job in first)
    curve = next(job for job in first if job.kind == "curve")
    results.done[curve] = {}
    assert {job.policy for job in expand(request, results) if job.kind == "tune"} == set(POLICIES)
    cheaper = {"text": "", "cost": 1.0, "attained": 10, "requests": 10}
    results.done[tune_job(STEP, "whole", "hpa-gpu")] = {
        "settings": [cheaper | {"cost": 2.0}, cheaper | {"cost": 3.0}, cheaper]
    }
    assert Job("play", STEP.name, "whole", 0, "hpa-gpu", 2) in list(expand(request, results))


def test_all_policies_compete_in_the_complete_run():
    request = Request(list(load_cases().values()))
    jobs = list(expand(request, Results(), foresee=True))
    for case in request.cases:
        assert {job.policy for job in jobs if (job.kind, job.case) == ("tune", case.name)} == set(NAMES)
        if case.default.days:
            days = {job.policy for job in jobs if (job.kind, job.case) == ("days", case.name)}
            assert days == {CLAIRVOYANT, *NAMES}
    everything = {job for job in jobs if job.kind == "play" and job.case == "m-large-10"}
    assert {job.policy for job in everything} == set(NAMES)


def test_the_few_rules_that_are_played_are_those_that_do_best_as_a_flow():
    case = STEP.model_copy(update={"default": Effort(seeds=1, rivals=2, steps=1, rounds=0, trials=0)})
    request = Request([case], policies=(OURS, "static-peak", "hpa-gpu", "kubeai", "knative"))
    results = Results()
    assert chosen_rivals(case, request, results) == ()
    for name, attained, cost in [
        ("static-peak", 100, 0.5), ("hpa-gpu", 100, 9.0), ("kubeai", 98, 1.0), ("knative", 100, 3.0),
    ]:  # fmt: skip
        row = {"text": "", "cost": cost, "attained": attained, "requests": 100}
        results.done[tune_job(case, "whole", name)] = {"settings": [row]}
    # The fixed size knows the whole trace beforehand.
    assert chosen_rivals(case, request, results) == ("knative", "hpa-gpu")


def test_results_that_are_missing_or_do_not_add_up_are_an_error(request_, smoke):
    request, results = request_, Results(dict(smoke.done))
    verify(request, results)
    ours = Job("play", STEP.name, "whole", 0, OURS)
    right = results.done[ours]
    results.done[ours] = right | {"missed": right["missed"] + 1}
    with pytest.raises(WorkMissingError, match="not all"):
        verify(request, results)
    results.done[ours] = right | {"requests": right["requests"] + 1, "missed": right["missed"] + 1}
    with pytest.raises(WorkMissingError, match="other requests"):
        verify(request, results)
    del results.done[ours]
    with pytest.raises(WorkMissingError, match="no result"):
        verify(request, results)


def test_a_run_that_lost_a_request_is_an_error():
    job = Job("play", STEP.name, "whole", 0, "static-peak")
    scenario = build_scenario(STEP, "whole", 0)
    outcome = run(scenario, make_policy("static-peak", 0, scenario))
    right = summarise(job, outcome, scenario, 1.0)
    assert right | {"bound_hours": 0} == play(job, STEP) | {"bound_hours": 0}
    with pytest.raises(WorkMissingError, match="accounted for"):
        summarise(job, replace(outcome, completed=outcome.completed - 1), scenario, 1.0)
    with pytest.raises(WorkMissingError, match="in the samples"):
        summarise(job, replace(outcome, attained=outcome.attained - 5), scenario, 1.0)


def test_an_interrupt_ends_every_process_and_says_how_to_go_on(tmp_path):
    # A shell starts background jobs with SIGINT ignored, and what ignores it passes that on.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.autoscaling", "--quick", "--output", str(tmp_path)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": f"{ROOT / 'operator'}{os.pathsep}{ROOT}"},
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    signal.signal(signal.SIGINT, before)
    try:
        assert process.stderr is not None
        assert "results are there already" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130, said
        assert "The same command goes on" in said.replace("\n", " ")
        deadline = time.monotonic() + 30
        while alive(process.pid):
            assert time.monotonic() < deadline, "a process is left"
            time.sleep(0.05)
    finally:
        if alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)


def alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("setting", range(settings_of("melange")))
def test_the_fixed_sizes_of_melange_are_those_of_the_rule(setting):
    scenario = build_scenario(STEP, "whole", 0)
    rule = rival("melange").policy(scenario, tuple(rival("melange").candidates())[setting])
    assert make_policy("melange", setting, scenario).replicas == rule.replicas


@pytest.mark.parametrize("name", ["static-peak", "static-mean", "melange"])
def test_fixed_sizes_for_14_days_see_the_flow_and_not_the_sample(name):
    larger = DAYS.load.model_copy(update={"replicas": 10})
    scenario, load = build_days(DAYS.model_copy(update={"load": larger}), 0)
    policy = make_days_policy(name, 0, scenario, load)
    more = make_days_policy(name, 0, scenario, scale_fluid(load, 40.0))
    assert 1 <= policy.replicas < more.replicas
    assert isinstance(more.replicas, int)


def test_the_maximum_is_twice_what_the_busiest_minute_needs():
    swing = load_cases()["sinusoid"]
    scenario = build_scenario(swing, "whole", 0)
    # 24 requests/s at the top of the swing, give or take what chance makes of a minute.
    assert scenario.maximum == pytest.approx(2 * 24 / scenario.capacity, rel=0.15)
    # By the work: in m-large's the requests are longer than in the mean of its 14 days.
    large = load_cases()["m-large-10"]
    trace, factor = servegen(), servegen_factor(large.load, large.objective)
    needs = [
        rate * factor / fleet().capacity(inputs, outputs, large.objective).requests_per_second
        for rate, inputs, outputs in zip(trace.rate, trace.input_mean, trace.output_mean, strict=True)
    ]
    assert build_days(large, 0)[0].maximum == math.ceil(2 * max(needs)) > 2 * large.load.replicas


def test_every_part_and_seed_of_a_load_has_the_same_maximum():
    case = quick_cases()["m-large-2"]
    scenarios = [build_scenario(case, case.parts[0], seed) for seed in (0, 1)] + [build_days(case, 0)[0]]
    assert len({scenario.maximum for scenario in scenarios}) == 1
    assert scenarios[0].maximum == build_days(load_cases()["m-large-2"], 0)[0].maximum


@pytest.mark.parametrize("name", NAMES)
def test_no_policy_asks_for_more_than_the_maximum(name):
    scenario = replace(build_scenario(STEP, "whole", 0), maximum=2)
    assert run(scenario, make_policy(name, 0, scenario)).wanted.max() <= 2


def test_the_planner_finds_as_cheap_a_schedule_whatever_chance_made_of_the_first_minutes():
    """Until replicas have started, 1 % of all requests miss: a little more or less, by the seed."""
    swing = load_cases()["sinusoid"]
    effort = swing.effort(full=False)
    hours = []
    for seed in range(3):
        scenario = build_scenario(swing, "whole", seed)
        found = plan(scenario, steps=effort.steps, rounds=effort.rounds, trials=effort.trials)
        assert found.reached
        hours.append(found.outcome.replica_seconds / 3600)
    assert max(hours) < 1.15 * min(hours)
