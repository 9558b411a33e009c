"""The read-only web page: what it shows, what it refuses, and that nothing of others becomes markup."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from html.parser import HTMLParser

import aiohttp
import pytest

from modelyard.core.overview.spending import build_spending
from modelyard.render.web.frame import SENTENCES
from modelyard.render.web.html import el, write
from modelyard.render.web.pages import fleet_page
from modelyard.runtime import web
from modelyard.runtime.web import HEADERS, WebPages, serve_web
from tests.unit.runtime.webstage import (
    HOSTILE,
    SECRET,
    condition,
    make_deployment,
    make_fleet,
    make_pages,
)

NOW = time.time()
PATHS = ("/", "/cost", "/routes", "/deployments/team/chat", "/deployments/team/huge", "/routes/team/front")
API_PATHS = ("/api/overview", "/api/spending", "/api/deployments/team/chat", "/api/routes/team/front")


@asynccontextmanager
async def serve(pages: WebPages, host: str = "127.0.0.1") -> AsyncIterator[Callable]:
    """Yields a function that asks for a path: status, headers and text."""
    runner = await serve_web(pages, host, 0)
    port = runner.addresses[0][1]
    async with aiohttp.ClientSession() as session:

        async def ask(path, method="GET", **headers):
            async with session.request(method, f"http://127.0.0.1:{port}{path}", headers=headers) as reply:
                return reply.status, reply.headers, await reply.text()

        try:
            yield ask
        finally:
            await runner.cleanup()


class Outline(HTMLParser):
    """Elements, and texts of headings, captions and cells."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.ids, self.texts = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        stated = dict(attrs)
        self.links += [stated["href"]] if "href" in stated else []
        self.ids += [stated["id"]] if "id" in stated else []

    def handle_data(self, data):
        self.texts.append(data)


async def test_the_fleet_shows_trouble_first():
    async with serve(make_pages(make_fleet(time.time()))) as ask:
        status, _, text = await ask("/")
    assert status == 200
    told = "".join(Outline(text).texts)
    assert "3 need attention. 1 stalled, 2 not ready, 3 warning, 3 healthy, 1 asleep." in told
    order = [
        told.index(f"team/{name}", told.index("Deployments"))
        for name in ("huge", "new", "code", "chat", "embed")
    ]
    assert order == sorted(order)
    assert "6.67" in told


async def test_costs_are_those_of_the_last_day():
    async with serve(make_pages(make_fleet(time.time()))) as ask:
        _, _, text = await ask("/cost")
    told = " ".join(Outline(text).texts)
    assert "$7.15 were spent" in told
    assert "99" not in told
    assert "$412.07" in told
    assert "provider:acme/large" in told


def test_spending_is_added_up_by_tenant_and_by_what_answered():
    spending = build_spending(make_fleet(NOW).spend, NOW)
    assert spending is not None
    assert [(row.name, row.dollars) for row in spending.tenants] == [
        ("blue", 3.2451),
        ("(not used)", 2.4),
        ("(anonymous)", 1.5),
    ]
    assert [(row.name, row.dollars) for row in spending.targets] == [
        ("team/chat", 5.6451),
        ("provider:acme/large", 1.5),
    ]
    assert build_spending(None, NOW) is None


@pytest.mark.parametrize("path", PATHS)
async def test_every_page_is_whole_and_every_link_leads_somewhere(path):
    async with serve(make_pages(make_fleet(time.time()))) as ask:
        status, headers, text = await ask(path)
        page = Outline(text)
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert len(page.ids) == len(set(page.ids))
        tags = [tag for tag, _ in page.tags]
        assert [tags.count(tag) for tag in ("html", "title", "h1", "main", "header", "footer")] == [1] * 6
        assert all(stated.get("scope") in {"col", "row"} for tag, stated in page.tags if tag == "th")
        assert tags.count("table") == tags.count("caption")
        for link in page.links:
            if link.startswith("/"):
                assert (await ask(link))[0] == 200, link


@pytest.mark.parametrize("path", [*PATHS, *API_PATHS])
async def test_texts_of_others_never_become_markup(path):
    pages = make_pages(make_fleet(time.time(), hostile=HOSTILE))
    async with serve(pages) as ask:
        _, headers, text = await ask(path)
    assert headers["X-Content-Type-Options"] == "nosniff"
    if path.startswith("/api/"):
        assert headers["Content-Type"].startswith("application/json")
        json.loads(text)
        return
    assert "<script>" not in text
    assert "\u202e" not in text
    assert "\x07" not in text
    scripts = [stated for tag, stated in Outline(text).tags if tag == "script"]
    assert scripts == [{"src": "/static/refresh.js", "defer": "defer"}]


def test_hostile_attributes_stay_attributes():
    text = write(el("a", "x", href=f'"onclick="alert(1) {HOSTILE}'))
    page = Outline(text)
    assert [list(stated) for _, stated in page.tags] == [["href"]]


async def test_the_hostile_message_is_still_told():
    async with serve(make_pages(make_fleet(time.time(), hostile=HOSTILE))) as ask:
        _, _, text = await ask("/deployments/team/huge")
    assert "<script>alert(1)</script>" in "".join(Outline(text).texts)


@pytest.mark.parametrize("path", [*PATHS, *API_PATHS, "/static/refresh.js", "/static/style.css"])
async def test_nothing_secret_and_nothing_from_elsewhere(path):
    async with serve(make_pages(make_fleet(time.time()))) as ask:
        status, headers, text = await ask(path)
    assert status == 200
    assert SECRET not in text
    assert "Set-Cookie" not in headers
    assert {name: headers[name] for name in HEADERS} == dict(HEADERS)
    assert "://" not in text.replace("hf://", "")


async def test_the_same_as_json():
    async with serve(make_pages(make_fleet(time.time()))) as ask:
        found = json.loads((await ask("/api/overview"))[2])
        assert [row["name"] for row in found["deployments"]][:2] == ["team/huge", "team/new"]
        assert found["accelerators"][0]["free"] == 8
        assert json.loads((await ask("/api/spending"))[2])["total"] == pytest.approx(7.1451)
        assert json.loads((await ask("/api/routes/team/front"))[2])["choice"]["target"] == "team/chat"
        assert json.loads((await ask("/api/deployments/team/chat"))[2])["size"]["replicas"] == 2


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/deployments/team/none", "/routes/team/none", "/static/web.py", "/static/..%2Fhtml.py"],
)
async def test_what_is_not_there(path):
    async with serve(make_pages(make_fleet(time.time()))) as ask:
        status, headers, text = await ask(path)
    assert status == 404
    assert headers["Content-Security-Policy"] == HEADERS["Content-Security-Policy"]
    assert "There is no such page" in text


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/", "/deployments/team/chat", "/api/overview"])
async def test_nothing_can_be_changed(path, method):
    async with serve(make_pages(make_fleet(time.time()))) as ask:
        assert (await ask(path, method))[0] == 405


async def test_before_the_cluster_was_seen_nothing_is_claimed():
    async with serve(make_pages(make_fleet(time.time()), acting=False)) as ask:
        assert (await ask("/"))[0] == 503
        assert (await ask("/api/overview"))[0] == 503
        assert (await ask("/static/style.css"))[0] == 200


@pytest.mark.parametrize(
    ("named", "status"),
    [
        ("localhost:8082", 200),
        ("127.0.0.1:8082", 200),
        ("[::1]:8082", 200),
        ("localhost", 200),
        ("evil.example:8082", 421),
        ("localhost.evil.example", 421),
        ("10.0.0.1:8082", 421),
    ],
)
async def test_a_loopback_address_is_only_for_local_names(named, status):
    async with serve(make_pages(make_fleet(time.time()))) as ask:
        assert (await ask("/", Host=named))[0] == status


async def test_other_addresses_have_names_of_their_own():
    async with serve(make_pages(make_fleet(time.time())), "0.0.0.0") as ask:
        assert (await ask("/", Host="modelyard.example"))[0] == 200


async def test_a_large_fleet_comes_in_pages():
    fleet = make_fleet(NOW)
    for index in range(450):
        item = make_deployment(f"m{index:03}")
        fleet.indices.deployments[item.object.key] = [item]
    async with serve(make_pages(fleet)) as ask:
        seen = []
        for number in (1, 2, 3):
            page = Outline((await ask(f"/?page={number}"))[2])
            names = {link for link in page.links if link.startswith("/deployments/team/m")}
            seen.append(names)
        first = Outline((await ask("/?page=x"))[2])
        last = Outline((await ask("/?page=99"))[2])
    assert "/?page=2" in first.links
    assert "/?page=2" in last.links
    assert len(set.union(*seen)) == 450


async def test_deployments_that_cannot_be_read_are_told():
    fleet = make_fleet(NOW)
    item = make_deployment("broken")
    fleet.indices.deployments["team/broken"] = [
        type(item)(uid="b", version="1", object=None, error="spec.model: wrong")
    ]
    async with serve(make_pages(fleet)) as ask:
        _, _, text = await ask("/")
    assert "LLMDeployment team/broken cannot be read: spec.model: wrong" in "".join(Outline(text).texts)


async def test_a_page_is_made_beside_the_event_loop_once_for_all_who_ask(monkeypatch):
    """The page waits for another answer: where it was made on the event loop, that would never come."""
    begun, answered, made = threading.Event(), threading.Event(), []

    def make(*arguments):
        made.append(arguments)
        begun.set()
        assert answered.wait(20), "nobody is answered meanwhile"
        return fleet_page(*arguments)

    monkeypatch.setattr(web, "fleet_page", make)
    async with serve(make_pages(make_fleet(time.time()))) as ask:
        asked = [asyncio.create_task(ask("/")) for _ in range(5)]
        assert await asyncio.to_thread(begun.wait, 20)
        assert (await ask("/static/style.css"))[0] == 200
        answered.set()
        replies = await asyncio.gather(*asked)
    assert [status for status, _, _ in replies] == [200] * 5
    assert len({text for _, _, text in replies}) == 1
    assert len(made) == 1


async def test_a_page_that_cannot_be_made_is_tried_again(monkeypatch):
    tries = []

    def make(*arguments):
        tries.append(arguments)
        if len(tries) == 1:
            raise RuntimeError("no page")
        return fleet_page(*arguments)

    monkeypatch.setattr(web, "fleet_page", make)
    monkeypatch.setattr(web, "KEEP_SECONDS", 0.0)
    async with serve(make_pages(make_fleet(time.time()))) as ask:
        assert (await ask("/"))[0] == 500
        assert (await ask("/"))[0] == 200


async def test_what_nobody_reads_through_is_counted():
    fleet, many = make_fleet(NOW), 450
    stalled = condition("Stalled", "True", "DoesNotFit", "weights of 140 GB do not fit")
    for index in range(many):
        item = make_deployment(f"broken{index:03}")
        broken = type(item)(uid=f"b{index}", version="1", object=None, error="spec.model: wrong")
        fleet.indices.deployments[f"team/broken{index:03}"] = [broken]
        item = make_deployment(f"m{index:03}", stalled, replicas=0)
        fleet.indices.deployments[item.object.key] = [item]
    async with serve(make_pages(fleet)) as ask:
        _, _, text = await ask("/")
        overview = json.loads((await ask("/api/overview"))[2])
    told = "".join(Outline(text).texts)
    assert told.count("cannot be read: spec.model: wrong") == web.NOTES
    assert f"{many - web.NOTES} more LLMDeployments cannot be read" in told
    assert told.count("weights of 140 GB do not fit") == SENTENCES
    assert f"{many + 6 - SENTENCES} more need attention" in told
    assert f"{many + 3} need attention" in told
    # Whoever wants all of them reads them as JSON.
    assert sum(row["level"] == "Stalled" for row in overview["deployments"]) == many + 1


async def test_json_keeps_every_character():
    fleet = make_fleet(NOW, hostile="größer als 模型")
    async with serve(make_pages(fleet)) as ask:
        for path in ("/api/overview", "/api/deployments/team/huge"):
            _, headers, text = await ask(path)
            assert headers["Content-Type"] == "application/json; charset=utf-8"
            assert "größer als 模型" in text
