"""Short ways to write manifests and to plan them."""

import json
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from modelyard.api.meta import API_VERSION
from modelyard.cli.main import app

LLAMA = "hf://meta-llama/Llama-3.1-8B-Instruct"


def manifest(name: str = "a", *, classes: Any = ("l4",), source: str = LLAMA, **spec: Any) -> dict[str, Any]:
    if "replicas" not in spec and "scaling" not in spec:
        spec["replicas"] = 1
    options = [item if isinstance(item, dict) else {"class": item} for item in classes]
    return {
        "apiVersion": API_VERSION,
        "kind": "LLMDeployment",
        "metadata": {"name": name, "namespace": "team"},
        "spec": {
            "placement": {"accelerators": options},
            **spec,
            "model": {"source": source, **spec.get("model", {})},
        },
    }


def run(tmp_path: Path, manifests: list[dict[str, Any]], *options: object, hub: bool = False) -> Any:
    path = tmp_path / "fleet.yaml"
    path.write_text(yaml.safe_dump_all(manifests), encoding="utf-8")
    arguments = ["plan", "-f", path, *options, *([] if hub else ["--offline"])]
    return CliRunner().invoke(app, [str(item) for item in arguments])


def report(
    tmp_path: Path, manifests: list[dict[str, Any]], *options: object, hub: bool = False
) -> dict[str, Any]:
    result = run(tmp_path, manifests, "-o", "json", *options, hub=hub)
    return json.loads(result.stdout)


def first(tmp_path: Path, item: dict[str, Any], *options: object) -> dict[str, Any]:
    return report(tmp_path, [item], *options)["deployments"][0]


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path
