"""Fixtures: headless Chromium, and a web page with a fleet behind it."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from dev.browser import BrowserMissingError, ensure_chromium
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.web import WebPages, serve_web
from tests.unit.runtime.webstage import make_fleet, make_pages

SIZE = {"width": 1280, "height": 900}
"""Of the window, in CSS pixels: a small laptop's."""


missing: list[str] = []
"""Why there is no browser; empty: there is one, or none was needed."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end, where it is not overlooked, that no browser has seen the page."""
    if missing:
        terminalreporter.section("WEB PAGE: NOT TESTED IN A BROWSER", red=True, bold=True)
        terminalreporter.line(missing[0])


# Not for the whole run: while it is open, Playwright's event loop counts as running in this thread, and asynchronous
# tests could not start theirs.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. It is installed where that is possible, and must be; elsewhere all is skipped, with the remedy."""
    try:
        program = ensure_chromium()
    except BrowserMissingError as error:
        missing.append(str(error))
        pytest.skip(str(error))
    with sync_playwright() as playwright:
        # Chromium's sandbox needs a user other than root; it only sees pages of our own here.
        running = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


class _Server:
    """Serves pages from a thread with an event loop of its own."""

    def __init__(self, pages: WebPages) -> None:
        self.port = 0
        self._pages = pages
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        self._started.wait()

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        try:
            runner = await serve_web(self._pages, "127.0.0.1", 0)
            self.port = runner.addresses[0][1]
        finally:
            self._started.set()
        await self._end.wait()
        await runner.cleanup()

    def stop(self) -> None:
        """End, if it has not."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join()


@dataclass
class Site:
    """A web page that is served."""

    url: str
    fleet: Fleet
    pages: WebPages
    stop: Callable[[], None]

    def change(self, change: Callable[[Fleet], None]) -> None:
        """Change the fleet, so that the next request shows it."""
        change(self.fleet)
        self.pages._kept = {}


@pytest.fixture
def make_site() -> Iterator[Callable[..., Site]]:
    """Serves web pages, each from a thread of its own; they end with the test."""
    stops: list[Callable[[], None]] = []

    def make(**options: str) -> Site:
        fleet = make_fleet(time.time(), **options)
        pages = make_pages(fleet)
        server = _Server(pages)
        stops.append(server.stop)
        return Site(f"http://127.0.0.1:{server.port}", fleet, pages, server.stop)

    yield make
    for stop in stops:
        stop()


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens pages, each in a window of its own with the options of a browser context."""
    contexts: list[BrowserContext] = []

    def make(**options: object) -> Page:
        context = browser.new_context(**{"viewport": SIZE, **options})
        contexts.append(context)
        return context.new_page()

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def page(open_page: Callable[..., Page]) -> Page:
    return open_page()
