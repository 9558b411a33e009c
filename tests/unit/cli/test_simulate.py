"""`modelyard simulate`: what is reported of a run, and that it adds up."""

import json
from decimal import Decimal
from itertools import pairwise

import pytest
import yaml

from tests.unit.cli.planning import LLAMA
from tests.unit.cli.simulating import SMALL, chat, only_run, simulate, simulated, write_trace

RISING = "step:before=1,after=6,at=300,minutes=15"


def test_every_request_is_counted_once(tmp_path):
    run = only_run(simulated(tmp_path, [chat()], "--synthetic", SMALL))
    assert run["completed"] + run["refused"] + run["abandoned"] == run["requests"] > 1000
    assert run["attained"] <= run["completed"]
    assert run["attainment"] == pytest.approx(run["attained"] / run["requests"], abs=1e-6)


def test_cost_is_replica_hours_times_the_price(tmp_path):
    report = simulated(tmp_path, [chat()], "--synthetic", SMALL)
    (deployment,) = report["deployments"]
    run, price = only_run(report), Decimal(deployment["setting"]["pricePerHour"])
    assert float(run["cost"]["total"]) == pytest.approx(float(price) * run["replicaHours"], abs=0.01)
    load = deployment["load"]
    tokens = load["requests"] * (load["inputTokens"] + load["outputTokens"])
    assert float(run["cost"]["perMillionTokens"]) == pytest.approx(
        float(price) * run["replicaHours"] / tokens * 1e6, rel=0.01
    )


def test_a_price_that_is_not_known_is_no_zero(tmp_path):
    unpriced = {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "AcceleratorClass",
        "metadata": {"name": "own"},
        "spec": {
            "resourceName": "nvidia.com/gpu",
            "nodeSelector": {"gpu": "own"},
            "memory": "24Gi",
            "memoryBandwidth": 300,
            "throughput": {"bf16": 120},
        },
    }
    item = chat()
    item["spec"]["placement"]["accelerators"] = [{"class": "own"}]
    report = simulated(tmp_path, [unpriced, item], "--synthetic", SMALL)
    assert "cost" not in only_run(report)
    assert "cost" not in report["totals"][0]
    assert "spec.price" in report["deployments"][0]["notes"][0]
    assert "?" in simulate(tmp_path, [unpriced, item], "--synthetic", SMALL).stdout


@pytest.mark.parametrize("policy", ["modelyard", "hpa-concurrency"])
def test_decisions_are_a_chain_and_each_says_why(tmp_path, policy):
    report = simulated(tmp_path, [chat()], "--synthetic", RISING, "--policy", policy)
    run, setting = only_run(report), report["deployments"][0]["setting"]
    sizes = [setting["initial"], *(item["toReplicas"] for item in run["decisions"])]
    assert len(sizes) > 1
    assert [item["fromReplicas"] for item in run["decisions"]] == sizes[:-1]
    assert all(setting["minimum"] <= size <= setting["maximum"] for size in sizes)
    assert all(before != after for before, after in pairwise(sizes))
    assert all(item["message"] for item in run["decisions"])
    assert max(sizes) == run["peakReplicas"]
    if policy == "modelyard":
        assert all(item["reason"] for item in run["decisions"])
        assert run["reasons"]


def test_the_same_question_has_the_same_answer(tmp_path):
    options = ("--synthetic", RISING, "--policy", "modelyard", "--policy", "keda-queue", "--seed", "7")
    first = simulate(tmp_path, [chat()], *options).stdout
    assert simulate(tmp_path, [chat()], *options).stdout == first
    other = simulate(tmp_path, [chat()], *options[:-1], "8").stdout
    assert other != first


def test_json_and_yaml_say_the_same(tmp_path):
    options = ([chat()], "--synthetic", SMALL)
    as_yaml = simulate(tmp_path, *options, "-o", "yaml").stdout
    assert yaml.safe_load(as_yaml) == simulated(tmp_path, *options)


def test_speed_raises_the_rate_and_keeps_the_length(tmp_path):
    trace = write_trace(tmp_path, [f"{second * 0.5},800,100" for second in range(1200)])
    once = simulated(tmp_path, [chat()], "--trace", trace)["deployments"][0]["load"]
    twice = simulated(tmp_path, [chat()], "--trace", trace, "--speed", "2x")["deployments"][0]["load"]
    assert twice["requests"] == 2 * once["requests"] == 2400
    assert twice["duration"] == once["duration"]


def test_policies_are_compared_on_the_same_requests(tmp_path):
    options = ("--synthetic", SMALL, "--policy", "static-peak", "--policy", "modelyard")
    report = simulated(tmp_path, [chat()], *options)
    (deployment,) = report["deployments"]
    assert [run["policy"] for run in deployment["runs"]] == ["static-peak", "modelyard"]
    assert len({run["requests"] for run in deployment["runs"]}) == 1
    assert [total["policy"] for total in report["totals"]] == ["static-peak", "modelyard"]


def test_each_deployment_gets_the_trace_and_the_total_is_their_sum(tmp_path):
    report = simulated(tmp_path, [chat("a"), chat("b")], "--synthetic", SMALL)
    runs = [item["runs"][0] for item in report["deployments"]]
    (total,) = report["totals"]
    assert total["requests"] == sum(run["requests"] for run in runs)
    assert total["replicaHours"] == pytest.approx(sum(run["replicaHours"] for run in runs), abs=1e-3)
    assert Decimal(total["cost"]["total"]) == sum(Decimal(run["cost"]["total"]) for run in runs)


def test_a_column_says_whose_request_it_is(tmp_path):
    rows = [f"{second},500,50,{'team/a' if second % 3 else 'team/b'}" for second in range(300)]
    trace = write_trace(
        tmp_path, [*rows, "300,500,50,team/gone"], "time,input_tokens,output_tokens,deployment"
    )
    result = simulate(tmp_path, [chat("a"), chat("b"), chat("c")], "--trace", trace, "-o", "json")
    report = json.loads(result.stdout)
    assert {item["name"]: item["load"]["requests"] for item in report["deployments"]} == {"a": 200, "b": 100}
    assert "team/gone is no deployment here" in result.stderr
    assert "no requests for team/c" in result.stderr


def test_a_fixed_size_stays(tmp_path):
    report = simulated(tmp_path, [chat(replicas=2)], "--synthetic", RISING)
    run = only_run(report)
    assert (run.get("decisions", []), run["peakReplicas"], run["coldStarts"]) == (
        [],
        2,
        0,
    )
    assert run["replicaHours"] == pytest.approx(2 * 900 / 3600, abs=1e-3)


def test_a_slower_start_attains_no_more(tmp_path):
    def attained(start):
        return only_run(simulated(tmp_path, [chat()], "--synthetic", RISING, "--start-time", start))[
            "attained"
        ]

    assert attained("10m") < attained("30s")


def test_clients_who_give_up_are_counted(tmp_path):
    many = ("--synthetic", "poisson:rate=30,minutes=5", "--policy", "static-mean")
    one = chat(scaling={"min": 1, "max": 1})
    patient = only_run(simulated(tmp_path, [one], *many))
    hasty = only_run(simulated(tmp_path, [one], *many, "--abandon-after", "10s"))
    assert patient["abandoned"] == 0 < hasty["abandoned"]


def test_the_series_covers_the_trace(tmp_path):
    report = simulated(tmp_path, [chat()], "--synthetic", SMALL)
    series, load = only_run(report)["series"], report["deployments"][0]["load"]
    lengths = {len(series[name]) for name in ("time", "requestsPerSecond", "ready", "wanted", "attained")}
    assert lengths == {60}
    assert sum(series["requestsPerSecond"]) * series["step"] == pytest.approx(load["requests"], rel=1e-3)


def test_a_declared_capacity_is_what_the_engine_answers(tmp_path):
    item = chat(scaling={"min": 1, "max": 1})
    item["spec"]["placement"]["accelerators"] = [{"class": "l4", "count": 1, "requestsPerMinute": 180}]
    report = simulated(
        tmp_path, [item], "--synthetic", "poisson:rate=2,minutes=10", "--policy", "static-peak"
    )
    assert report["deployments"][0]["setting"]["capacityPerMinute"] == 180
    assert "the declared 180" in report["deployments"][0]["notes"][0]
    assert only_run(report)["attainment"] > 0.95


def test_what_does_not_fit_is_told_and_the_rest_simulated(tmp_path):
    large = chat("large", replicas=1, source="hf://meta-llama/Llama-3.3-70B-Instruct")
    large["spec"]["placement"]["accelerators"] = [{"class": "l4", "count": 1}]
    result = simulate(tmp_path, [chat(), large], "--synthetic", SMALL, "-o", "json")
    assert result.exit_code == 3
    fits, refused = json.loads(result.stdout)["deployments"]
    assert (bool(fits["runs"]), bool(refused["runs"])) == (True, False)
    assert "set placement.accelerators[].count" in refused["refusal"]


def test_an_unknown_model_names_the_remedy(tmp_path):
    item = chat(source="hf://nobody/nothing")
    item["spec"]["placement"]["accelerators"] = [{"class": "l4", "count": 1, "requestsPerMinute": 60}]
    result = simulate(tmp_path, [item], "--synthetic", SMALL)
    assert result.exit_code == 3
    assert "set model.profile" in result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--synthetic", "poisson:rate=1", "--policy", "best"],
            "--policy: 'best' is none of modelyard, static-peak",
        ),
        (
            ["--synthetic", "poisson:rate=1", "--speed", "fast"],
            "--speed: 'fast' is no speed: write it like 2x",
        ),
        (["--synthetic", "poisson:rate=1", "--speed", "0x"], "--speed"),
        (
            ["--synthetic", "poisson:rate=1", "--deployment", "x"],
            "--deployment: default/x is none of team/chat",
        ),
        (["--synthetic", "poisson:rate=1", "--against", "nowhere"], "--against"),
        (["--synthetic", "poisson:rate=1", "--start-time", "soon"], "--start-time"),
        (["--synthetic", "poisson:rate=1", "--abandon-after", "0s"], "--abandon-after"),
        (["--synthetic", "poisson:rate=1", "--scrape-delay", "0s"], "--scrape-delay"),
        (["--synthetic", "poisson:rate=1", "--lost-metrics", "20m"], "'20m' is no time from the start of"),
        (
            ["--synthetic", "poisson:rate=1", "--lost-metrics", "5m-soon"],
            "such as 20m-35m: 'soon' is not a dur",
        ),
        (
            ["--synthetic", "poisson:rate=1", "--lost-metrics", "9m-5m"],
            "--lost-metrics: '9m-5m' ends before it",
        ),
        (
            ["--synthetic", "poisson:rate=1", "--lost-metrics", "1h-2h"],
            "begins at 3600 s, but the traffic ends at",
        ),
        (["--synthetic", "poisson:rate=1", "--spot-loss", "2"], "--spot-loss: '2' is no time and replicas"),
        (["--synthetic", "poisson:rate=1", "--spot-loss", "5m=0"], "'5m=0': replicas must be from 1 to 1000"),
        (["--synthetic", "poisson:rate=1", "--spot-loss", "5m=-1"], "replicas must be from 1 to 1000"),
        (["--synthetic", "poisson:rate=1", "--spot-loss", "5m=\u0662"], "replicas must be from 1 to 1000"),
        (
            ["--synthetic", "poisson:rate=1", "--spot-loss", "2h=1"],
            "--spot-loss: it comes at 7200 s, but the",
        ),
        ([], "exactly one of --trace and --synthetic"),
    ],
)
def test_a_wrong_option_is_named(tmp_path, options, message):
    result = simulate(tmp_path, [chat()], *options)
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())


def test_a_wrong_manifest_is_not_simulated(tmp_path):
    result = simulate(tmp_path, [chat(scaling={"min": 3, "max": 2})], "--synthetic", SMALL)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "min must not be above max" in result.stderr


def test_a_wrong_trace_names_line_and_column(tmp_path):
    trace = write_trace(tmp_path, ["0,10,5", "1,ten,5"])
    result = simulate(tmp_path, [chat()], "--trace", trace)
    assert result.exit_code == 2
    assert "line 3, column input_tokens" in result.stderr


def test_only_the_chosen_deployment_is_simulated(tmp_path):
    report = simulated(
        tmp_path, [chat("a"), chat("b")], "--synthetic", SMALL, "--deployment", "a", "-n", "team"
    )
    assert [item["name"] for item in report["deployments"]] == ["a"]


def test_the_standard_model_is_simulated_without_a_declaration(tmp_path):
    run = only_run(simulated(tmp_path, [chat(source=LLAMA, classes=("h100",))], "--synthetic", SMALL))
    assert run["attainment"] > 0.9


def test_who_gave_up_asks_again(tmp_path):
    many = ("--synthetic", "step:before=15,after=0.2,at=60,minutes=10", "--abandon-after", "20s")
    one = chat(scaling={"min": 1, "max": 1})
    once = only_run(simulated(tmp_path, [one], *many))
    again = only_run(simulated(tmp_path, [one], *many, "--retries", "10"))
    assert once["requests"] == again["requests"]
    # Some who come in the rush are answered after it.
    assert once["completed"] + 20 < again["completed"]
    assert once["attained"] >= again["attained"]
    refused = simulate(tmp_path, [one], *many[:2], "--retries", "1")
    assert refused.exit_code == 2
    assert "give --abandon-after, too" in refused.stderr


def test_an_image_that_is_pulled_delays_the_first_start_on_each_node(tmp_path):
    without = simulated(tmp_path, [chat()], "--synthetic", RISING)
    pulled = simulated(tmp_path, [chat()], "--synthetic", RISING, "--image-pull", "5m")
    assert "imagePullTime" not in without["deployments"][0]["setting"]
    assert pulled["deployments"][0]["setting"]["imagePullTime"] == 300
    assert only_run(pulled)["attained"] < only_run(without)["attained"]
    text = simulate(tmp_path, [chat()], "--synthetic", RISING, "--image-pull", "5m").stdout
    assert "its image 300 s before" in text


def test_requests_longer_than_the_context_are_refused_and_counted(tmp_path):
    # `chat` has a context of 8,192 tokens.
    rows = [f"{second},{8100 if second % 10 else 8192},92" for second in range(60)]
    report = simulated(tmp_path, [chat()], "--trace", write_trace(tmp_path, rows))
    assert only_run(report)["refused"] == 6
    notes = report["deployments"][0]["notes"]
    assert any(note.startswith("6 of 60 requests are refused") for note in notes)
    assert "8,192 tokens" in " ".join(notes)


def test_a_start_takes_what_the_operator_expects_unless_told(tmp_path):
    report = simulated(tmp_path, [chat()], "--synthetic", SMALL)
    # 75 s of vLLM and 9 GB of weights at 1.7 GB/s.
    assert report["deployments"][0]["setting"]["startTime"] == pytest.approx(80, abs=2)
    assert "a start takes 80 s" in simulate(tmp_path, [chat()], "--synthetic", SMALL).stdout
    told = simulated(tmp_path, [chat()], "--synthetic", SMALL, "--start-time", "37s")
    assert told["deployments"][0]["setting"]["startTime"] == 37


FALLING = "step:before=12,after=1,at=600,minutes=40"


def ready_at(run, seconds):
    return run["series"]["ready"][int(seconds / run["series"]["step"])]


def test_without_metrics_nothing_leaves(tmp_path):
    lost = ("--lost-metrics", "9m-30m")
    known = only_run(simulated(tmp_path, [chat()], "--synthetic", FALLING))
    report = simulated(tmp_path, [chat()], "--synthetic", FALLING, *lost)
    run = only_run(report)
    assert report["deployments"][0]["setting"]["lostMetrics"] == [{"start": 540, "end": 1800}]
    assert ready_at(run, 1790) == ready_at(run, 560) > ready_at(known, 1790)
    assert not [
        item
        for item in run["decisions"]
        if 540 <= item["time"] < 1800 and item["toReplicas"] < item["fromReplicas"]
    ]
    assert run["reasons"]["NoData"] > known["reasons"].get("NoData", 0) + 100
    text = simulate(tmp_path, [chat()], "--synthetic", FALLING, *lost).stdout
    assert "no metrics from 0:09:00 to 0:30:00" in text


def test_old_metrics_come_too_late(tmp_path):
    rising = ("--synthetic", "step:before=2,after=14,at=600,minutes=30", "--start-time", "30s")
    fresh = only_run(simulated(tmp_path, [chat()], *rising))
    report = simulated(tmp_path, [chat()], *rising, "--scrape-delay", "2m")
    assert report["deployments"][0]["setting"]["scrapeDelay"] == 120
    assert only_run(report)["attained"] < fresh["attained"]
    assert "metrics are 120 s old" in simulate(tmp_path, [chat()], *rising, "--scrape-delay", "2m").stdout


def test_replicas_that_are_taken_away_are_started_again(tmp_path):
    steady = ("--synthetic", "poisson:rate=10,minutes=30")
    losses = ("--spot-loss", "10m=2", "--spot-loss", "20m")
    whole = only_run(simulated(tmp_path, [chat()], *steady))
    report = simulated(tmp_path, [chat()], *steady, *losses)
    run = only_run(report)
    assert report["deployments"][0]["setting"]["spotLosses"] == [
        {"time": 600, "replicas": 2}, {"time": 1200, "replicas": 1},
    ]  # fmt: skip
    assert run["coldStarts"] >= whole["coldStarts"] + 3
    assert run["attained"] < whole["attained"]
    text = simulate(tmp_path, [chat()], *steady, *losses).stdout
    assert "2 replicas taken away at 0:10:00; 1 replica taken away at 0:20:00" in text


def test_a_deployment_that_may_use_spot_capacity_is_told_what_is_played(tmp_path):
    item = chat()
    item["spec"]["placement"]["spot"] = {"onDemandBase": 0}
    steady = ("--synthetic", "poisson:rate=2,minutes=5")
    told = simulated(tmp_path, [item], *steady)["deployments"][0]["notes"]
    noted = "placement.spot is set: simulated as if none of it were spot capacity"
    assert f"{noted}; --spot-loss says when replicas are taken away" in told
    assert noted in simulated(tmp_path, [item], *steady, "--spot-loss", "1m=1")["deployments"][0]["notes"]
