"""The generated definitions."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from pydantic import Field

from modelyard.api.crd import (
    ANNOTATION_LIMIT,
    HEADER,
    KINDS,
    build_crd,
    build_schema,
    find_differences,
    main,
    render_files,
)
from modelyard.api.meta import ApiModel, ObjectMeta

CRDS = Path(__file__).parents[3] / "crds"


def test_the_committed_files_are_what_the_models_say() -> None:
    assert find_differences(CRDS) == []


def test_files_are_the_same_every_time_and_fit_an_annotation() -> None:
    files = render_files()
    assert files == render_files()
    assert len(files) == len(KINDS)
    for text in files.values():
        assert text.startswith(HEADER)
        assert len(text.encode()) < ANNOTATION_LIMIT


def test_check_finds_changed_missing_and_left_over_files(tmp_path: Path) -> None:
    said: list[str] = []
    assert main(["--output", str(tmp_path)]) == 0
    assert main(["--output", str(tmp_path), "--check"], said.append) == 0
    assert said == []
    changed, missing, *_ = sorted(tmp_path.iterdir())
    changed.write_text(changed.read_text().replace("maximum: 1000000", "maximum: 2000000"))
    missing.unlink()
    (tmp_path / "old.yaml").write_text("")
    assert main(["--output", str(tmp_path), "--check"], said.append) == 1
    assert [Path(line.split()[0]).name for line in said] == [changed.name, missing.name, "old.yaml"]
    assert all("run make crds" in line for line in said)


def test_a_file_is_the_definition_as_yaml() -> None:
    for kind in KINDS.values():
        text = render_files()[f"{kind.plural}.modelyard.dev.yaml"]
        assert yaml.safe_load(text) == build_crd(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_every_list_map_and_string_is_bounded(kind: str) -> None:
    for path, node in nodes(build_schema(KINDS[kind].model)["properties"]["spec"], kind):
        if node["type"] == "array":
            assert "maxItems" in node, path
        elif node["type"] == "string":
            assert {"maxLength", "enum"} & node.keys(), path
        elif node["type"] == "integer":
            assert {"minimum", "maximum"} <= node.keys(), path
        elif "properties" not in node and node["type"] == "object":
            assert "maxProperties" in node, path


@pytest.mark.parametrize("kind", KINDS)
def test_a_status_has_neither_defaults_nor_rules(kind: str) -> None:
    for path, node in nodes(build_schema(KINDS[kind].model)["properties"]["status"], kind):
        # But for the whole status, which says that nobody has looked at the object.
        assert path == kind or "default" not in node, path
        assert "x-kubernetes-validations" not in node, path


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_object_counts_as_not_looked_at_where_a_status_will_be_written(kind: str) -> None:
    status = build_schema(KINDS[kind].model)["properties"]["status"]
    wanted = None if kind == "AcceleratorClass" else {"observedGeneration": -1}
    assert status.get("default") == wanted
    assert status["properties"]["observedGeneration"]["minimum"] == -1


def test_no_default_creates_scaling() -> None:
    spec = build_schema(KINDS["LLMDeployment"].model)["properties"]["spec"]
    assert "default" not in spec
    assert "default" not in spec["properties"]["scaling"]
    assert "default" not in spec["properties"]["replicas"]


@pytest.mark.parametrize(
    ("annotation", "problem"),
    [
        (str, "upper bound"),
        (dict[str, Annotated[str, Field(max_length=1)]], "upper bound"),
        (tuple[int, ...], "upper bound"),
        (int | bool, "cannot say anyOf"),
    ],
)
def test_a_field_that_cannot_be_bounded_stops_the_generator(annotation: Any, problem: str) -> None:
    class Spec(ApiModel):
        """A spec."""

        field: annotation

    class Status(ApiModel):
        """A status."""

    class Kind(ApiModel):
        """A kind."""

        metadata: ObjectMeta
        spec: Spec
        status: Status

    with pytest.raises(ValueError, match=rf"Kind\.spec\.field: .*{problem}"):
        build_schema(Kind)


def nodes(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for word in ("items", "additionalProperties"):
        if word in schema:
            yield from nodes(schema[word], f"{path}.{word}")
