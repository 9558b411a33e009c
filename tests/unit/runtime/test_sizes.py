"""The decided sizes as metrics and over HTTP."""

import aiohttp
import pytest

from dev.cluster.processes import free_ports
from modelyard.core.plan import DeploymentPlan, Size
from modelyard.core.reasons import Code, Reason
from modelyard.runtime.health import Health, serve_health
from modelyard.runtime.metrics import REGISTRY
from modelyard.runtime.sizes import SizeBoard
from tests.unit.core.build import KEY, make_deployment

SCALED = make_deployment(scaling={"max": 4})
LABELS = {"namespace": "team", "deployment": "llama"}


def plan(replicas=3, code=Code.OFFERED_LOAD, *, known=True):
    return DeploymentPlan(KEY, size=Size(replicas, Reason(code, "because"), known=known))


def gauge():
    return REGISTRY.get_sample_value("modelyard_desired_replicas", LABELS)


def changes(reason):
    return REGISTRY.get_sample_value("modelyard_size_changes_total", {**LABELS, "reason": reason})


@pytest.fixture
def board():
    board = SizeBoard()
    yield board
    board.forget(KEY)


def test_the_newest_size_is_published(board):
    board.publish(SCALED, plan(3))
    board.publish(SCALED, plan(5, Code.NO_DATA, known=False))
    assert gauge() == 5
    assert board.find(KEY) == {
        "desiredReplicas": 5,
        "reason": "NoData",
        "message": "because",
        "demandKnown": False,
    }


@pytest.mark.parametrize(
    ("deployment", "later"),
    [
        (make_deployment(replicas=2), plan(2, Code.FIXED)),
        (make_deployment(scaling={"max": 4}, suspend=True), plan(0, Code.SUSPENDED)),
        (SCALED, DeploymentPlan(KEY)),
    ],
    ids=["fixed", "suspended", "refused"],
)
def test_no_figure_stands_where_no_size_is_decided(board, deployment, later):
    """A figure of 0, or an old one, would be followed."""
    board.publish(SCALED, plan())
    board.publish(deployment, later)
    assert gauge() is None
    assert board.find(KEY) is None


def test_series_go_with_the_deployment(board):
    board.publish(SCALED, plan())
    board.count(KEY, "OfferedLoad")
    board.count(KEY, "OfferedLoad")
    board.count(KEY, "Idle")
    assert (changes("OfferedLoad"), changes("Idle")) == (2, 1)
    board.forget(KEY)
    assert (gauge(), changes("OfferedLoad"), changes("Idle")) == (None, None, None)
    board.forget(KEY)


async def no_metrics() -> bytes:
    return b""


async def test_keda_reads_the_size_and_an_unknown_one_is_an_error(board):
    """KEDA keeps the size where it gets no number, so a start must not answer one."""
    (port,) = free_ports(1)
    health = Health()
    runner = await serve_health(health, "127.0.0.1", port, no_metrics, board.find)
    url = f"http://127.0.0.1:{port}/v1/desired-replicas/{KEY}"
    try:
        async with aiohttp.ClientSession() as session:

            async def ask():
                async with session.get(url) as reply:
                    return reply.status, await reply.json()

            assert (await ask())[0] == 503
            health.synced = True
            assert (await ask())[0] == 503, "one that stands by knows no sizes"
            health.acting = True
            assert (await ask())[0] == 404
            board.publish(SCALED, plan(3))
            status, answer = await ask()
            assert (status, answer["desiredReplicas"]) == (200, 3)
    finally:
        await runner.cleanup()
