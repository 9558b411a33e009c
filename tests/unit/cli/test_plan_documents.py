"""What is written about plans: the schema in docs/plan.md, and the examples for pipelines."""

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from modelyard.cli.planmarkdown import MARKER
from modelyard.core.report import model

ROOT = Path(__file__).parents[3]
PIPELINES = sorted((ROOT / "examples" / "ci").glob("*.yaml"))


def test_every_field_of_the_report_is_documented() -> None:
    text = (ROOT / "docs" / "plan.md").read_text(encoding="utf-8")
    kinds = [
        item
        for item in vars(model).values()
        if isinstance(item, type) and issubclass(item, BaseModel) and item.__module__ == model.__name__
    ]
    names = {str(info.alias or name) for kind in kinds for name, info in kind.model_fields.items()}
    assert {"perMillionTokens", "class", "breakEven"} <= names
    forms = ("`{}`", "{}[]", ".{}`")
    assert {name for name in names if not any(form.format(name) in text for form in forms)} == set()


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.stem)
def test_a_pipeline_finds_its_comment_by_the_marker(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert yaml.safe_load(text)
    assert MARKER in text
    assert "--output markdown > plan.md" in text


def test_the_script_of_the_gitlab_pipeline_compiles() -> None:
    job = yaml.safe_load((ROOT / "examples" / "ci" / "gitlab-ci.yaml").read_text(encoding="utf-8"))[
        "modelyard"
    ]
    (shell,) = job["after_script"]
    script = shell.partition("<<'SCRIPT'\n")[2].rpartition("SCRIPT")[0]
    assert "urllib.request" in script
    compile(script, "gitlab-ci.yaml", "exec")
