"""Draws a dashboard in headless Chromium, from a Prometheus, with Grafana's own components."""

import functools
import http.server
import json
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from playwright.sync_api import ConsoleMessage, Error, Page, sync_playwright

from dev.browser import ensure_chromium
from dev.dashboards.__main__ import FOLDER
from dev.dashboards.page import Report, ensure_page
from dev.stack import LOOPBACK

WIDTH = 1600
"""Of the window, in CSS pixels: a common screen."""

HEIGHT = 1000

TIMEOUT_MS = 180_000
"""For one dashboard: it takes 3 s on two idle cores, and more than a minute on busy ones."""


class DrawingError(RuntimeError):
    """A dashboard could not be drawn."""


@dataclass(frozen=True, slots=True)
class DrawnPanel:
    """What a panel shows."""

    id: int
    title: str
    type: str
    values: list[str]
    """Of stats and bars, as they are written."""
    series: list[str]
    """Names of series."""
    problem: str
    """Empty, `No data`, or an error."""
    text: str
    """All that stands in it, but for what is on the axes."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One dashboard as it was drawn."""

    panels: list[DrawnPanel]
    messages: list[str]
    """What the browser's console said: nothing, if all is well."""
    picture: bytes
    """PNG."""

    def problems(self) -> dict[str, str]:
        """Return what is wrong, by the panel's title."""
        return {panel.title: panel.problem for panel in self.panels if panel.problem}


class Drawer:
    """Chromium with the page in it, over one Prometheus. A context manager.

    Use it in one thread, which may have no event loop. `scrape_interval` is in seconds, as a data source of Grafana
    would have it. Raises the errors of `dev.browser` and `dev.dashboards.page`.
    """

    def __init__(self, prometheus: str, *, scrape_interval: int, report: Report = print) -> None:
        self._prometheus = prometheus
        self._scrape_interval = scrape_interval
        self._report = report
        self._running = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as running:
            chromium = ensure_chromium(self._report)
            server = _serve(str(ensure_page(self._report)))
            running.callback(server.server_close)
            running.callback(server.shutdown)
            playwright = running.enter_context(sync_playwright())
            # Chromium's sandbox needs a user other than root; it only sees pages of our own here.
            self._browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            running.callback(self._browser.close)
            self._url = f"http://{LOOPBACK}:{server.server_address[1]}/index.html"
            self._running = running.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    def draw(
        self,
        name: str,
        begin: float,
        end: float,
        variables: Mapping[str, str] | None = None,
        theme: Literal["dark", "light"] = "dark",
    ) -> Drawn:
        """Draw a dashboard, by its file's name, over a time range (Unix times). Raises DrawingError."""
        request = {
            "dashboard": json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")),
            "prometheus": self._prometheus,
            "from": begin,
            "to": end,
            "scrapeInterval": self._scrape_interval,
            "variables": dict(variables or {}),
            "theme": theme,
        }
        page = self._browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=theme)
        try:
            return _draw(page, self._url, request)
        except Error as error:
            raise DrawingError(f"{name}: {error}") from error
        finally:
            page.close()


def _draw(page: Page, url: str, request: Mapping[str, object]) -> Drawn:
    messages: list[str] = []

    def note(message: ConsoleMessage) -> None:
        messages.append(f"{message.type}: {message.text}")

    page.on("console", note)
    page.on(
        "response",
        lambda reply: messages.append(f"{reply.status}: {reply.url}") if reply.status >= 400 else None,
    )
    page.on("pageerror", lambda error: messages.append(f"error: {error}"))
    page.add_init_script(f"window.drawingRequest = {json.dumps(request)};")
    page.goto(url, timeout=TIMEOUT_MS)
    try:
        page.wait_for_function("window.drawn", timeout=TIMEOUT_MS)
    except Error as error:
        raise DrawingError("; ".join([str(error), *messages])) from error
    # Icons and the last frames.
    page.wait_for_load_state("networkidle")
    panels = [DrawnPanel(**panel) for panel in page.evaluate("window.drawn")]
    # The window's height was part of no size in it, so this only brings the rest into view.
    height = page.evaluate("Math.ceil(document.querySelector('main').getBoundingClientRect().height)")
    page.set_viewport_size({"width": WIDTH, "height": height})
    return Drawn(panels, messages, page.screenshot())


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


def _serve(folder: str) -> http.server.ThreadingHTTPServer:
    server = http.server.ThreadingHTTPServer((LOOPBACK, 0), functools.partial(_Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
