"""Short ways to simulate manifests."""

import json
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from modelyard.cli.main import app
from tests.unit.cli.planning import manifest

SMALL = "poisson:rate=2,minutes=10"


def chat(name: str = "chat", **spec: Any) -> dict[str, Any]:
    """A deployment whose engine is known: an 8B model with FP8 weights on L4s, between 1 and 6 of them."""
    if "replicas" not in spec:
        spec.setdefault("scaling", {"min": 1, "max": 6})
    source = spec.pop("source", "hf://RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8")
    return manifest(name, source=source, model={"contextLength": 8192}, **spec)


def simulate(tmp_path: Path, manifests: list[dict[str, Any]], *options: object) -> Any:
    path = tmp_path / "fleet.yaml"
    path.write_text(yaml.safe_dump_all(manifests), encoding="utf-8")
    return CliRunner().invoke(
        app, ["simulate", "-f", str(path), "--offline", *(str(item) for item in options)]
    )


def simulated(tmp_path: Path, manifests: list[dict[str, Any]], *options: object) -> dict[str, Any]:
    result = simulate(tmp_path, manifests, "-o", "json", *options)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def only_run(report: dict[str, Any]) -> dict[str, Any]:
    (deployment,) = report["deployments"]
    (run,) = deployment["runs"]
    return run


def write_trace(folder: Path, rows: list[str], header: str = "time,input_tokens,output_tokens") -> Path:
    path = folder / "trace.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path
