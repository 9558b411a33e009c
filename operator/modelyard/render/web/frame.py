"""What all pages share: head, navigation, the line that says how things are, and words for levels."""

from collections.abc import Iterable
from typing import Final
from urllib.parse import quote
from xml.etree import ElementTree as ET

from modelyard.api.meta import split_key
from modelyard.core.overview.model import LEVELS, WORDS, Judged, Level, Overview
from modelyard.render.web.html import Child, el, write

PAGES: Final = (("/", "Fleet"), ("/cost", "Cost"), ("/routes", "Routes"))

_SIGNS: Final[dict[Level, str]] = {
    "Stalled": "\N{HEAVY MULTIPLICATION X}",
    "NotReady": "\N{BLACK SQUARE}",
    "Warning": "\N{BLACK UP-POINTING TRIANGLE}",
    "Changing": "\N{CLOCKWISE OPEN CIRCLE ARROW}",
    "Healthy": "\N{BLACK CIRCLE}",
    "Asleep": "\N{WHITE CIRCLE}",
    "Off": "\N{HORIZONTAL BAR}",
}
"""Shapes that differ without colour. The word stands beside them."""

SENTENCES: Final = 100
"""Sentences on what needs attention, the worst first: more than somebody reads before something is done about them."""

_TOLD: Final[frozenset[Level]] = frozenset({"Stalled", "NotReady", "Warning"})
"""Levels whose sentence is shown."""


def page(title: str, path: str, overview: Overview, content: Iterable[Child]) -> str:
    """Return a whole page. `path`: the entry of the navigation that it belongs to."""
    return _document(
        title,
        _header(path),
        el(
            "main",
            el("h1", title),
            el("p", summarize(overview), class_="summary", id="summary"),
            content,
            id="main",
            tabindex="-1",
        ),
        el(
            "footer",
            el(
                "p",
                "Read at ",
                el("time", overview.time, datetime=overview.time),
                ". Nothing can be changed here. ",
                el("a", "Reload", href=""),
            ),
        ),
    )


def message_page(title: str, text: str) -> str:
    """Return a page that only says something."""
    return _document(title, _header(""), el("main", el("h1", title), el("p", text), id="main", tabindex="-1"))


def _document(title: str, *body: Child) -> str:
    return write(
        el(
            "html",
            el(
                "head",
                el("meta", charset="utf-8"),
                el("meta", name="viewport", content="width=device-width, initial-scale=1"),
                el("meta", name="color-scheme", content="light dark"),
                el("title", f"{title} - Modelyard"),
                el("link", rel="icon", href="data:,"),
                el("link", rel="stylesheet", href="/static/style.css"),
                el("script", src="/static/refresh.js", defer="defer"),
            ),
            el(
                "body",
                el("a", "Skip to content", href="#main", class_="skip"),
                body,
                el("p", id="live", role="status", aria_live="polite", class_="unseen"),
            ),
            lang="en",
        )
    )


def _header(path: str) -> ET.Element:
    links = [
        el("li", el("a", name, href=href, aria_current="page" if href == path else None))
        for href, name in PAGES
    ]
    return el(
        "header",
        el("p", "Modelyard", class_="brand"),
        el("nav", el("ul", links), aria_label="Pages"),
        el("div", id="controls"),
    )


def summarize(overview: Overview) -> str:
    """Return one sentence on how things are."""
    items = overview.judged
    counts = {level: sum(item.level == level for item in items) for level in LEVELS}
    told = ", ".join(f"{count} {WORDS[level]}" for level, count in counts.items() if count)
    troubled = len(overview.troubled)
    need = "1 needs" if troubled == 1 else f"{troubled or 'Nothing'} need{'' if troubled else 's'}"
    return f"{need} attention. {told or 'Nothing is here'}."


def show_level(level: Level) -> ET.Element:
    """Return a level as a sign and a word."""
    return el(
        "span",
        el("span", _SIGNS[level], aria_hidden="true"),
        f" {WORDS[level]}",
        class_=f"level level-{level.lower()}",
    )


def link(kind: str, key: str) -> ET.Element:
    """Return a link to the page of an LLMDeployment or LLMRoute. `kind`: `deployments` or `routes`."""
    namespace, name = split_key(key)
    return el("a", key, href=f"/{kind}/{quote(namespace, safe='')}/{quote(name, safe='')}")


def attention(overview: Overview) -> Child:
    """Return what needs attention, with its sentences; nothing if nothing does."""
    kinds = (
        ("LLMDeployment", "deployments", overview.deployments),
        ("LLMRoute", "routes", overview.routes),
        ("LLMBudget", "", overview.budgets),
        ("LLMTenant", "", overview.tenants),
        ("LLMProvider", "", overview.providers),
    )
    told = [(kind, page, item) for kind, page, items in kinds for item in items if item.level in _TOLD]
    if not told:
        return None
    told.sort(key=lambda entry: LEVELS.index(entry[2].level))
    left = len(told) - SENTENCES
    return el(
        "section",
        el("h2", "Needs attention", id="attention"),
        el("ul", [_tell(kind, page, item) for kind, page, item in told[:SENTENCES]], class_="told"),
        el("p", f"{left} more need attention: the tables begin with them.") if left > 0 else None,
        aria_labelledby="attention",
    )


def _tell(kind: str, page: str, item: Judged) -> ET.Element:
    since: list[Child] = [" since ", el("time", item.since, datetime=item.since)] if item.since else []
    return el(
        "li",
        show_level(item.level),
        f" {kind} ",
        link(page, item.name) if page else item.name,
        f": {item.reason}",
        since,
        el("p", item.message) if item.message else None,
    )


def notes(overview: Overview) -> Child:
    """Return what is missing on the page."""
    if not overview.notes:
        return None
    return el(
        "section",
        el("h2", "Not shown", id="notes"),
        el("ul", [el("li", note) for note in overview.notes]),
        aria_labelledby="notes",
    )
