"""The simulator against the cluster: the operator's process, Envoy and engine stand-ins under the same requests.

The cluster plays recorded traffic that comes in waves; then the simulator plays the requests as they were really sent,
with the starts as they really were. Both begin with the making of the deployment.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median, pstdev

import numpy as np
import pytest

from dev.cluster.control_plane import ControlPlane
from dev.cluster.waiting import wait_until
from dev.demo.kube import Cluster, Manifest, load_manifests, namespace_manifest
from dev.demo.settings import CRDS
from dev.demo.traffic import wait_for_models
from dev.loadgen import LoadGenerator, PlannedRequest, RequestRecord
from dev.stack import Stack
from dev.standin.profiles import PROFILES
from modelyard.simulator.fleetrun import Recorder
from modelyard.simulator.modelyard import READ_INTERVAL, ModelyardPolicy
from modelyard.simulator.rivals.common import mean_shape
from modelyard.simulator.run import run
from modelyard.simulator.scenario import Arrivals, Objective, Outcome, Scenario, StartTime
from tests.e2e.podwatch import PodWatch
from tests.e2e.waves import make_waves, simulated_engine

REPLICA_HOURS = 0.10
"""Relative: how far the replica-hours may be apart. A fortieth is known: a leaving pod stays for 5 s at least, in which
gateways learn of it, and the simulator bills it only until its last answer. Readings at other moments and other draws
of the start time move the simulator's own figure by a hundredth (standard deviation)."""
ATTAINMENT = 0.03
"""How far the shares of requests answered within the objective may be apart: as many requests as come in eight busy
seconds, half of a start that may come earlier in one than in the other."""
PEAK = 1
"""Replicas by which the largest sizes may differ."""

PROFILE = PROFILES["l4-8b"]
REQUESTS_PER_MINUTE = 60
"""Of one replica, declared. At the waves' mean request a replica runs prompts for a seventh of the time then."""
OBJECTIVE = Objective(inter_token=0.060)
"""A token takes 27 ms alone and 32 ms at the declared capacity: only a fleet that is too small misses."""
LOAD_SECONDS = 15
"""Until a stand-in's port opens. With its process and the probes a start takes 16 s."""
DRAIN_SECONDS = 30
MAXIMUM = 8
"""Replicas: as many as there are accelerators, and more than the waves ask for, so that it holds nothing level."""
CLASS = "l4-waves"
NAME = "waves"
INSTANCE_TYPE = "g6.48xlarge"
"""Of the only node that the class selects: other tests have nodes of their own, with other engines."""


@dataclass
class Bed:
    """What the test works on."""

    cluster: Cluster
    stack: Stack
    namespace: str
    pods: PodWatch


@pytest.fixture
def bed(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Bed]:
    """Operator with its defaults, Envoy, and eight accelerators on one local node."""
    namespace = f"waves-{uuid.uuid4().hex[:6]}"
    stack = Stack(
        folder=tmp_path,
        kubeconfig=control_plane.kubeconfig,
        operator_kubeconfig=control_plane.user_kubeconfig("modelyard-operator", ["system:masters"]),
        namespaces=(namespace,),
        nodes="l4x8=1",
        node_prefix=f"w{uuid.uuid4().hex[:5]}",
        standin_rules=(
            f"class=l4x8:STANDIN_PROFILE={PROFILE.name}",
            f"class=l4x8:STANDIN_LOAD_SECONDS={LOAD_SECONDS}",
        ),
        operator_options=("--no-read-hub",),
    )
    own = [namespace_manifest(namespace), accelerator_class()]
    with Cluster(control_plane.kubeconfig) as cluster:
        cluster.apply_crds(load_manifests([CRDS]))
        cluster.apply(own)
        with stack, PodWatch(control_plane.kubeconfig, namespace) as pods:
            try:
                yield Bed(cluster, stack, namespace, pods)
            finally:
                cluster.delete(own)


async def test_replica_hours_are_those_of_the_cluster(bed: Bed) -> None:
    waves = make_waves()
    bed.cluster.apply([deployment(waves)], bed.namespace)
    model = f"{bed.namespace}/{NAME}"
    await wait_for_models(bed.stack.url, [model], timeout_s=60)
    wait_until(lambda: ready_replicas(bed) == 1, "the first replica serves", timeout_s=120)

    began = time.time()
    records = await LoadGenerator(bed.stack.url, model).run(planned(waves))
    end = began + waves.duration
    wait_until(lambda: time.time() > end, "the trace is over", timeout_s=waves.duration)

    assert [record.error for record in records if not record.answered] == []
    hours = bed.pods.held_s(end) / 3600
    attained = sum(attains(record) for record in records) / len(records)
    peak = bed.pods.most_wanted(end)

    scenario = replay(bed, waves, records, began)
    recorder = Recorder(ModelyardPolicy(scenario), scenario)
    outcome = run(scenario, recorder)
    simulated_hours = outcome.replica_seconds / 3600
    simulated_peak = max(change.after for change in recorder.changes)
    said = compare(bed, outcome, recorder, end, attained)
    print(said)

    lives = bed.pods.lives
    # Both waves were followed up and down: a fleet that stands still would agree with anything.
    assert len(lives) >= 4, said
    assert sum(life.leaving is not None and life.leaving < end for life in lives) >= 3, said
    assert (outcome.completed, outcome.requests) == (len(records), len(records))
    assert abs(simulated_hours / hours - 1) < REPLICA_HOURS, said
    assert abs(outcome.attainment - attained) < ATTAINMENT, said
    assert abs(simulated_peak - peak) <= PEAK, said


def accelerator_class() -> Manifest:
    """Return the class of the local node's accelerators."""
    return {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "AcceleratorClass",
        "metadata": {"name": CLASS},
        "spec": {
            "resourceName": "nvidia.com/gpu",
            "nodeSelector": {"node.kubernetes.io/instance-type": INSTANCE_TYPE},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "price": {"onDemand": "1"},
        },
    }


def deployment(waves: Arrivals) -> Manifest:
    """Return the deployment as the simulator's policy declares it to itself."""
    shape = mean_shape(waves)
    return {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": NAME},
        "spec": {
            "model": {"source": "hf://example/unknown"},
            "placement": {
                "accelerators": [{"class": CLASS, "count": 1, "requestsPerMinute": REQUESTS_PER_MINUTE}]
            },
            "load": {
                "inputTokens": round(shape.input_tokens),
                "outputTokens": round(shape.output_tokens),
            },
            "scaling": {"min": 1, "max": MAXIMUM},
            "rollout": {"drainTimeout": f"{DRAIN_SECONDS}s"},
        },
    }


def ready_replicas(bed: Bed) -> int:
    """Return the replicas that serve, as the deployment's status says."""
    return sum(item.status.ready_replicas for item in bed.cluster.llm_deployments(bed.namespace))


def planned(arrivals: Arrivals) -> list[PlannedRequest]:
    """Return arrivals as the load generator takes them."""
    columns = zip(arrivals.time, arrivals.input_tokens, arrivals.output_tokens, strict=True)
    return [PlannedRequest(float(at), int(prompt), int(output)) for at, prompt, output in columns]


def attains(record: RequestRecord) -> bool:
    """Say whether an answer came within the objective, as the client saw it."""
    first, inter = record.time_to_first_token_s, record.inter_token_s
    limit = OBJECTIVE.first_token_base + OBJECTIVE.first_token_per_input_token * record.prompt_tokens
    return first is not None and first <= limit and (inter is None or inter <= OBJECTIVE.inter_token)


def replay(bed: Bed, waves: Arrivals, records: Sequence[RequestRecord], began: float) -> Scenario:
    """Return the scenario of what was really sent and how long starts really took.

    The simulated run begins one reading before the first pod was made: its first decision makes it, and measures its
    start, as the cluster's did.
    """
    offset = began - (bed.pods.lives[0].created - READ_INTERVAL)
    sent = sorted(records, key=lambda record: record.sent_s or 0.0)
    arrivals = replace(
        waves,
        time=np.array([offset + (record.sent_s or 0.0) for record in sent]),
        input_tokens=np.array([record.prompt_tokens for record in sent]),
        output_tokens=np.array([record.output_tokens for record in sent]),
        duration=offset + waves.duration,
    )
    starts = [life.start_s for life in bed.pods.lives if life.start_s is not None]
    return Scenario(
        name=NAME,
        arrivals=arrivals,
        engine=simulated_engine(PROFILE),
        capacity=REQUESTS_PER_MINUTE / 60,
        minimum=1,
        maximum=MAXIMUM,
        initial=0,
        start=StartTime(median(starts), pstdev(math.log(taken) for taken in starts)),
        drain=DRAIN_SECONDS,
        objective=OBJECTIVE,
    )


def compare(bed: Bed, outcome: Outcome, recorder: Recorder, end: float, attained: float) -> str:
    """Return both runs side by side."""
    zero = bed.pods.lives[0].created - READ_INTERVAL
    lives = bed.pods.lives
    sizes = sorted(
        [(life.created - zero, "+") for life in lives]
        + [(life.leaving - zero, "-") for life in lives if life.leaving is not None and life.leaving < end]
    )
    starts = [life.start_s for life in lives if life.start_s is not None]
    leaves = [
        life.gone - life.leaving for life in lives if life.gone is not None and life.leaving is not None
    ]
    held = bed.pods.held_s(end)
    return (
        f"replica-seconds: cluster {held:.0f}, simulator {outcome.replica_seconds:.0f} "
        f"({outcome.replica_seconds / held - 1:+.1%})\n"
        f"attained: cluster {attained:.3f}, simulator {outcome.attainment:.3f}\n"
        f"cluster: most {bed.pods.most_wanted(end)}, {len(lives)} pods, starts of {median(starts):.1f} s "
        f"(at most {max(starts):.1f}), left within {median(leaves or [0.0]):.1f} s; "
        f"simulator: {outcome.cold_starts} starts\n"
        f"cluster sizes: {' '.join(f'{at:.0f}{sign}' for at, sign in sizes)}\n"
        f"simulator sizes: {' '.join(f'{change.time:.0f}:{change.after}' for change in recorder.changes)}"
    )
