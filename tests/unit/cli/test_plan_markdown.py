"""The comment on a pull request: nothing that its author wrote is markup, whatever it is."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from modelyard.cli.main import app
from modelyard.cli.planmarkdown import LARGEST_COMMENT, MARKER, code, escape

HOSTILE = [
    "a | b",
    "`code`",
    "<img src=x onerror=alert(1)>",
    "</details><h1>approved</h1>",
    "@everyone look",
    "@org/team",
    "fixes #1, closes !2, group/project#3",
    "![](https://example.com/pixel.png)",
    "[click](https://example.com)",
    "https://example.com www.example.com",
    "**bold** _italic_ ~~gone~~ # heading",
    "line\n\n# heading\n| a | b |",
    "$\\LaTeX$ :+1: &lt;b&gt;",
    "\u202eright to left\u202c \x1b[31mred\x07",
    "-->",
    "```",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("form", [escape, code])
def test_nothing_is_left_that_could_be_markup(form, text: str) -> None:
    shown = form(text).removeprefix("<code>").removesuffix("</code>")
    assert not re.search(r"[|`<>\[\]*_~!#@$\\\n]", re.sub(r"&#\d+;", "", shown))
    # A mention, a reference or an address is broken by a character without width.
    assert not re.search(r"(&#(64|35|33|36);)(?=[\w-])|://|www\.", shown.replace("&#58;", ":"))
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x1f]", shown)


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_any_text_is_safe(text: str) -> None:
    shown = escape(text)
    assert not re.search(r"[|`<>\[\]*_~!#@$\\\n\r]", re.sub(r"&#\d+;", "", shown))


def test_plain_sentences_stay_readable() -> None:
    assert escape("2 x h100, 27.52 (USD/day); a-b = c + d") == "2 x h100, 27.52 (USD/day); a-b = c + d"


def test_a_long_text_is_cut() -> None:
    assert len(escape("x" * 10_000)) < 2_100


def plan(tmp_path, text: str, *options: str) -> str:
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    return (
        CliRunner().invoke(app, ["plan", "-f", str(tmp_path), "--offline", "-o", "markdown", *options]).stdout
    )


def test_a_hostile_manifest_adds_no_line_and_no_column(tmp_path) -> None:
    manifest = """
apiVersion: modelyard.dev/v1alpha1
kind: LLMDeployment
metadata: {name: "%s"}
spec: {model: {source: "hf://a/b", nane: 1}, replicas: 1}
"""
    name = "x</code></details>\\n\\n# Approved by @admin\\n| a | b | `c` https://example.com"
    text = plan(tmp_path, manifest % name)
    assert text.startswith(f"{MARKER}\n### Modelyard plan: 0.00 USD/day, invalid manifests\n")
    assert "\n# Approved" not in text
    assert "@admin" not in text
    assert "https://example" not in text
    assert "</details><" not in text
    assert text.count("<details>") == text.count("</details>")


def test_a_fleet_too_large_for_a_comment_is_cut_and_says_so(tmp_path) -> None:
    document = """
apiVersion: modelyard.dev/v1alpha1
kind: LLMDeployment
metadata: {name: m-%d}
spec:
  model: {source: "hf://meta-llama/Llama-3.1-8B-Instruct"}
  placement: {accelerators: [{class: l4, count: 1, requestsPerMinute: 60}]}
  replicas: 1
"""
    text = plan(tmp_path, "---".join(document % number for number in range(150)))
    assert len(text) <= LARGEST_COMMENT + 100
    assert re.search(r"Details of \d+ more deployments do not fit here", text)
    assert text.count("<details>") == text.count("</details>")


def test_thousands_of_problems_are_cut_and_counted(tmp_path) -> None:
    document = """
apiVersion: modelyard.dev/v1alpha1
kind: LLMDeployment
metadata: {name: "%s%d"}
spec: {replicas: 1, "%s": 1}
"""
    text = plan(tmp_path, "---".join(document % ("|" * 200, number, "@" * 200) for number in range(500)))
    assert len(text) <= LARGEST_COMMENT
    shown = len(re.findall(r"^- \*\*", text, flags=re.MULTILINE))
    (more,) = re.findall(r"^- and (\d+) more problems$", text, flags=re.MULTILINE)
    assert shown + int(more) >= 1000
