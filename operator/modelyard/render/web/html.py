"""HTML as a tree of elements, written out by the standard library, which escapes every text and attribute."""

import unicodedata
from collections.abc import Iterable, Sequence
from xml.etree import ElementTree as ET

Child = ET.Element | str | None
"""An element, a text, or nothing."""


def el(tag: str, *children: Child | Iterable[Child], **attributes: str | None) -> ET.Element:
    """Return an element. `class_` and `for_` lose their underscore, others become dashes; None leaves one out."""
    element = ET.Element(
        tag,
        {
            name.rstrip("_").replace("_", "-"): plain(value)
            for name, value in attributes.items()
            if value is not None
        },
    )
    for child in children:
        for item in [child] if child is None or isinstance(child, (str, ET.Element)) else child:
            _append(element, item)
    return element


def _append(parent: ET.Element, child: Child) -> None:
    if child is None:
        return
    if isinstance(child, ET.Element):
        parent.append(child)
        return
    text = plain(child)
    if len(parent):
        parent[-1].tail = (parent[-1].tail or "") + text
    else:
        parent.text = (parent.text or "") + text


def plain(text: str) -> str:
    """Return a text without control and format characters: some are not allowed in HTML, others turn text around."""
    return "".join(" " if unicodedata.category(char) in {"Cc", "Cf", "Cs"} else char for char in text)


def write(root: ET.Element) -> str:
    """Return a whole document."""
    return f"<!doctype html>\n{ET.tostring(root, encoding='unicode', method='html')}\n"


def table(
    identity: str, caption: str, heads: Sequence[str], rows: Iterable[Sequence[Child]], numbers: str = ""
) -> ET.Element:
    """Return a table in a region that scrolls and that the keyboard reaches. The first cell heads its row.

    `numbers`: a letter for each column, `n` where it holds numbers.
    """
    kinds = ["number" if kind == "n" else None for kind in numbers.ljust(len(heads))]
    label = f"{identity}-caption"
    body = [
        el(
            "tr",
            [
                el("th", cell, scope="row") if column == 0 else el("td", cell, class_=kinds[column])
                for column, cell in enumerate(row)
            ],
        )
        for row in rows
    ]
    return el(
        "div",
        el(
            "table",
            el("caption", caption, id=label),
            el(
                "thead",
                el(
                    "tr",
                    [
                        el("th", head, scope="col", class_=kind)
                        for head, kind in zip(heads, kinds, strict=True)
                    ],
                ),
            ),
            el("tbody", body),
        ),
        class_="scroll",
        role="region",
        aria_labelledby=label,
        tabindex="0",
        id=identity,
    )


def definitions(rows: Iterable[tuple[str, Child]]) -> ET.Element:
    """Return a list of names and their values. A value that is nothing leaves its name out."""
    return el(
        "dl",
        [
            part
            for name, value in rows
            if value is not None and value != ""
            for part in (el("dt", name), el("dd", value))
        ],
    )
