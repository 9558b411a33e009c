"""The web page of an operator that runs: it shows what there is."""

import asyncio
import json
import urllib.request

from dev.cluster.waiting import wait_until


def get(bed, path):
    """Return what is answered for a path."""
    with urllib.request.urlopen(bed.web_url + path, timeout=10) as reply:
        return reply.read().decode()


def row(bed, name):
    """Return a deployment of the overview; None before it is there."""
    found = json.loads(get(bed, "/api/overview"))["deployments"]
    return next((item for item in found if item["name"] == f"{bed.namespace}/{name}"), None)


async def test_a_deployment_from_its_start_to_its_requests(bed, make_model):
    name = make_model({"scaling": {"min": 1, "max": 2}})
    key = f"{bed.namespace}/{name}"

    def healthy():
        found = row(bed, name)
        return found is not None and (found["level"], found["ready"], found["wanted"]) == ("Healthy", 1, 1)

    await asyncio.to_thread(wait_until, healthy, "the page says that it serves", timeout_s=60)
    for page in ("/", "/cost", "/routes", f"/deployments/{key}"):
        assert await asyncio.to_thread(get, bed, page)
    assert key in await asyncio.to_thread(get, bed, "/")

    async def chat_and_look():
        assert (await bed.chat(name))[0] == 200
        found = await asyncio.to_thread(row, bed, name)
        return float(found.get("requestsPerSecond", 0))

    async with asyncio.timeout(60):
        while await chat_and_look() <= 0:
            await asyncio.sleep(0.2)

    report = json.loads(await asyncio.to_thread(get, bed, f"/api/deployments/{key}"))
    assert report["model"] == name
    assert report["placement"]["class"] == "h100"
    assert {item["type"] for item in report["conditions"]} >= {"Ready", "Stalled", "PlacementPreferred"}


def test_what_the_page_and_the_command_line_say_is_the_same_object(bed, make_model):
    name = make_model({"replicas": 1})
    bed.wait_condition(name, "Progressing", "False", "Complete")

    def agrees():
        shown, status = row(bed, name), bed.deployment(name).status
        assert status.cost is not None
        told = (shown["ready"], shown["costPerHour"], shown["model"])
        return told == (status.ready_replicas, status.cost.per_hour, status.model)

    wait_until(agrees, "the page says what the status says", timeout_s=60)
    overview = json.loads(get(bed, "/api/overview"))
    h100 = next(item for item in overview["accelerators"] if item["name"] == "h100")
    assert h100["nodes"] == 1
    assert h100["used"] >= 1
    assert [item["active"] for item in overview["operators"]] == [True]
