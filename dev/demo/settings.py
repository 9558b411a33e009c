"""What the demo plays, and every number in it."""

from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
EXAMPLES = tuple(
    REPOSITORY / "examples" / name
    for name in ("accelerator-classes.yaml", "gemma-3-270m.yaml", "llama-3.1-8b.yaml", "route.yaml")
)
"""What can serve in a cluster that has only Modelyard: a model over several nodes needs LeaderWorkerSet."""
CRDS = REPOSITORY / "crds"

DEMO_NAMESPACE = "modelyard-demo"
OPERATOR_NAMESPACE = "modelyard-system"
FIELD_MANAGER = "modelyard-demo"
"""Owner of what the demo applies, so that a second run changes it without conflict."""

NODES = "h100:1=2,l4x4:2=4,cpu=1"
"""Two nodes with an H100 each, four with two L4s each, and one without GPUs: room for eight L4 replicas."""

CHAT_MODEL = "gemma-3-270m"
CHAT_PROMPT = "A good sleep is important because"
"""Local nodes have the model's pre-trained weights, which continue a text rather than answer a question."""
CHAT_STOP = "\n"
"""Ends the answer with its first line."""
CHAT_TOKENS = 48
"""Longest answer. The model writes tens of tokens a second on two CPU cores."""
CHAT_TIMEOUT_S = 300.0
"""Time for the held request: the engine's start takes seconds, an overloaded machine much longer."""

TRAFFIC_MODEL = "llama-3.1-8b"
TRACE_START_S = 840.0
"""The ten minutes from 0:14:00 of the trace on: the load rises by half, from 4.6 to 6.8 requests/s."""
TRACE_DURATION_S = 600.0
TRAFFIC_MINUTES = 4.0
"""Longest time to play it in; also the speed (2.5) at which every recorded request is sent."""

ENGINE_PROFILE = "l4-8b"
"""The stand-in's step times: FP8 Llama-3.1-8B on an L4, about 3 requests/s at the trace's sizes. They are not
scaled, so 3 requests/s of played time; on the trace's own clock that is 3 divided by the speed."""
REPLICA_RATE = 3.0
"""Requests/s of one replica; `requestsPerMinute` of the example says the same to the operator."""

START_S = 60.0
"""From pod to Ready in trace time. An assumption for 8B on an L4 with weights on the node's disk: llm-d
measured 37 s (tuned) to 91 s (default) for a 32B model on an H100 (llm-d-incubation/llm-d-autoscaling)."""

EXPECTED_PEAK = range(5, 8)
"""Replicas that the peak needs: 14 to 18 requests/s at 3 a replica, with the operator's headroom."""

STEADY_TIMEOUT_S = 180.0
"""Time for the deployments to settle after `apply`, beyond the engine's start."""


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """One run."""

    folder: Path
    """Everything that runs keeps its files and logs here."""
    report: Path
    minutes: float = TRAFFIC_MINUTES
    keep: bool = False
    kubeconfig: Path | None = None
    """An existing cluster to use; None: start a local one."""
    interactive: bool = True
    """A terminal with a person: show the live table."""

    @property
    def speed(self) -> float:
        """How much faster than recorded the trace is played."""
        return TRACE_DURATION_S / (60 * self.minutes)

    @property
    def scale_rate(self) -> float:
        """Share of the recorded requests that is sent: a faster run sends fewer, at the same rate."""
        return min(1.0, TRACE_DURATION_S / (60 * TRAFFIC_MINUTES) / self.speed)

    @property
    def engine_start_s(self) -> float:
        """Start time of a stand-in, scaled like the traffic."""
        return START_S / self.speed

    @property
    def local(self) -> bool:
        """Whether the demo starts its own cluster."""
        return self.kubeconfig is None

    def describe_time(self) -> str:
        """Return the sentences that say what is scaled and what is not."""
        every = "every recorded request" if self.scale_rate >= 1 else f"{self.scale_rate:.0%} of the requests"
        traffic = (
            f"{TRACE_DURATION_S / 60:.0f} minutes of the Azure 2023 conversation trace, from minute "
            f"{TRACE_START_S / 60:.0f} on, {every}, played in {self.minutes:g} min: arrivals are {self.speed:g} times "
            "as fast as recorded."
        )
        if not self.local:
            return traffic
        return (
            f"{traffic} The start time of a replica ({START_S:.0f} s) is scaled too: {self.engine_start_s:.0f} s. The "
            f"stand-in's step times are those of an L4, not scaled: a replica answers about {REPLICA_RATE:g} "
            f"requests/s as played, which is {REPLICA_RATE / self.speed:.1f}/s on the recorded clock."
        )
