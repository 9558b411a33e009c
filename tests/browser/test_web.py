"""The web page in a real browser: rules of accessibility, keyboard, no JavaScript, light and dark, updates."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import SIZE, Site
from tests.unit.runtime.webstage import HOSTILE, make_deployment

PATHS = ("/", "/cost", "/routes", "/deployments/team/huge", "/deployments/team/chat", "/routes/team/front")

STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
"""Rules of axe-core that are asked: WCAG 2.2 up to AA, and its best practice."""

IMAGES = Path(__file__).parents[2] / "docs" / "images"

FOCUSED = """() => {
    const element = document.activeElement, style = getComputedStyle(element), box = element.getBoundingClientRect();
    return {
        name: element.tagName + " " + (element.id || element.getAttribute("href") || element.textContent),
        outline: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
        seen: box.bottom > 0 && box.right > 0 && box.top < innerHeight && box.left < innerWidth,
    };
}"""
FOCUSABLE = """() => [...document.querySelectorAll("a[href], button, [tabindex='0']")].map(
    (element) => element.tagName + " " + (element.id || element.getAttribute("href") || element.textContent))"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", [*PATHS, "/nothing"])
def test_axe_finds_no_violation(site: Site, open_page: Callable[..., Page], path: str, scheme: str) -> None:
    page = open_page(color_scheme=scheme)
    page.goto(site.url + path)
    found = Axe().run(page, options={"runOnly": STANDARDS})
    assert found.response["passes"]
    assert found.violations_count == 0, found.generate_report()


def test_light_and_dark_differ(site: Site, open_page: Callable[..., Page]) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        page = open_page(color_scheme=scheme)
        page.goto(site.url)
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(255, 255, 255)", "rgb(21, 24, 28)"]


@pytest.mark.parametrize("path", PATHS)
def test_the_keyboard_reaches_everything_and_shows_where_it_is(site: Site, page: Page, path: str) -> None:
    page.goto(site.url + path)
    everything = page.evaluate(FOCUSABLE)
    reached = []
    for _ in everything:
        page.keyboard.press("Tab")
        at = page.evaluate(FOCUSED)
        assert at["outline"], at
        assert at["seen"], at
        reached.append(at["name"])
    assert reached == everything


def test_the_keyboard_alone_leads_to_a_decision(site: Site, page: Page) -> None:
    page.goto(site.url)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    link = page.get_by_role("region", name="Deployments").get_by_role("link", name="team/huge")
    while not link.evaluate("link => link === document.activeElement"):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement !== document.body"), "the link was not reached"
    page.keyboard.press("Enter")
    expect(page).to_have_title("Deployment team/huge - Modelyard")
    expect(page.get_by_role("table", name="Changes of size")).to_contain_text("OfferedLoad")


@pytest.mark.parametrize("path", PATHS)
def test_without_javascript_it_says_the_same(
    site: Site, open_page: Callable[..., Page], page: Page, path: str
) -> None:
    plain = open_page(java_script_enabled=False)
    plain.goto(site.url + path)
    page.goto(site.url + path)
    assert plain.locator("main").inner_text() == page.locator("main").inner_text()
    assert plain.get_by_role("button").count() == 0
    assert page.get_by_role("button").all_inner_texts() == ["Pause updates"]
    plain.get_by_role("link", name="Cost", exact=True).click()
    expect(plain).to_have_title("Cost - Modelyard")
    plain.get_by_role("link", name="Reload").click()
    expect(plain.get_by_role("heading", level=1)).to_have_text("Cost")


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_asked_of_others_and_nothing_is_refused(site: Site, page: Page, path: str) -> None:
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(site.url + path)
    page.wait_for_load_state("networkidle")
    assert {url for url in asked if not url.startswith((site.url, "data:"))} == set()
    assert said == []
    assert page.context.cookies() == []


@pytest.mark.parametrize("path", PATHS)
def test_hostile_texts_are_only_texts(make_site: Callable[..., Site], page: Page, path: str) -> None:
    site = make_site(hostile=HOSTILE)
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.goto(site.url + path)
    page.wait_for_load_state("networkidle")
    assert dialogs == []
    assert page.locator("main script").count() == 0


@pytest.mark.parametrize("path", PATHS)
def test_a_narrow_window_scrolls_in_one_direction_only(
    site: Site, open_page: Callable[..., Page], path: str
) -> None:
    """WCAG 1.4.10: 320 CSS pixels; tables may scroll in their own region."""
    page = open_page(viewport={"width": 320, "height": 640})
    page.goto(site.url + path)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 320


def test_it_updates_by_itself_and_keeps_the_focus(site: Site, page: Page) -> None:
    page.clock.install()
    page.goto(site.url)
    region = page.get_by_role("region", name="Deployments")
    region.get_by_role("link", name="team/chat").focus()
    expect(page.get_by_role("status")).to_have_text("")

    def fail(fleet: object) -> None:
        lost = make_deployment("chat", {**_NOT_READY})
        site.fleet.indices.deployments["team/chat"] = [lost]

    site.change(fail)
    page.clock.run_for(10_000)
    expect(page.locator("#summary")).to_contain_text("4 need attention")
    expect(page.get_by_role("status")).to_contain_text("4 need attention")
    expect(page.locator(":focus")).to_have_text("team/chat")


_NOT_READY = {
    "type": "Ready",
    "status": "False",
    "reason": "EngineFailed",
    "message": "pod chat-x: CrashLoopBackOff",
    "lastTransitionTime": "2026-11-30T09:00:00Z",
}


def test_updates_can_be_paused(site: Site, page: Page) -> None:
    page.clock.install()
    asked: list[str] = []
    page.goto(site.url)
    page.get_by_role("button", name="Pause updates").press("Enter")
    page.on("request", lambda request: asked.append(request.url))
    page.clock.run_for(60_000)
    assert asked == []
    page.get_by_role("button", name="Resume updates").press("Enter")
    with page.expect_request(site.url + "/"):
        page.clock.run_for(10_000)


def test_an_operator_that_is_gone_is_told_once_and_the_page_stays(site: Site, page: Page) -> None:
    page.clock.install()
    page.goto(site.url)
    shown = page.locator("main").inner_text()
    site.stop()
    page.clock.run_for(10_000)
    expect(page.get_by_role("status")).to_contain_text("it shows how things were")
    assert page.locator("main").inner_text() == shown


@pytest.mark.parametrize(
    ("name", "path", "scheme"),
    [
        ("web-fleet", "/", "light"),
        ("web-cost", "/cost", "light"),
        ("web-routes", "/routes", "dark"),
        ("web-deployment", "/deployments/team/chat", "light"),
    ],
)
def test_the_screenshots_of_the_documents(
    site: Site, open_page: Callable[..., Page], tmp_path: Path, name: str, path: str, scheme: str
) -> None:
    """`MODELYARD_UPDATE_SCREENSHOTS=1` writes them anew. Fonts differ between machines, so pixels are not compared."""
    page = open_page(color_scheme=scheme)
    page.goto(site.url + path)
    folder = IMAGES if os.environ.get("MODELYARD_UPDATE_SCREENSHOTS") else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    shot = page.screenshot(path=folder / f"{name}.png", full_page=True)
    assert shot.startswith(b"\x89PNG")
    committed = (IMAGES / f"{name}.png").read_bytes()
    assert int.from_bytes(committed[16:20], "big") == SIZE["width"]
