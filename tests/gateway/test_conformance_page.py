"""The page of promises names tests that exist."""

import re
from pathlib import Path

FOLDER = Path(__file__).parent
PAGE = FOLDER.parents[1] / "docs" / "conformance.md"


def test_every_test_that_the_page_names_exists():
    named = re.findall(r"`([\w/]+\.py)::(\w+|\*)`", PAGE.read_text(encoding="utf-8"))
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not (FOLDER / file).exists()
        or (test != "*" and f"def {test}(" not in (FOLDER / file).read_text(encoding="utf-8"))
    ]
    assert named
    assert missing == []
