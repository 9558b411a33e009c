"""The golden cases: manifests in, children out."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.catalog.engines import ImageSettings
from modelyard.render.children import build_children
from modelyard.render.settings import PodPeer, RenderSettings
from modelyard.render.workload import Workload

FOLDER = Path(__file__).parent
INPUTS = sorted(path.stem for path in (FOLDER / "input").glob("*.yaml"))
UPDATE = os.environ.get("MODELYARD_UPDATE_GOLDEN") == "1"
"""Write the outputs anew, for review in the diff."""

SETTINGS = RenderSettings(
    gateway=PodPeer("modelyard-system", {"app.kubernetes.io/name": "modelyard-gateway"}),
    operator=PodPeer("modelyard-system", {"app.kubernetes.io/name": "modelyard-operator"}),
)
MIRRORED = RenderSettings(
    gateway=SETTINGS.gateway,
    operator=SETTINGS.operator,
    images=ImageSettings(
        mirrors={"docker.io": "registry.example/hub", "ghcr.io": "registry.example/ghcr/"},
        digests={"vllm/vllm-openai:v0.32.0": "sha256:" + "0" * 64},
    ),
    image_pull_secrets=("registry",),
    hub_endpoint="https://hub.example",
)
_MIRRORED_CASES = {"external-actuator"}
_SPOT_CASES = {"vllm-spot-l40s"}
_PIPELINES = {"vllm-pipeline-of-six": 3}
"""Stages over which the layers are spread."""
_FITTING_CONTEXTS = {"vllm-pipeline-of-six": 24576}
"""Tokens that fit, where the spec names no context length and the model's own is too long."""


class _Dumper(yaml.SafeDumper):
    """Without anchors: a reader wants to see each object whole."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def read_workload(name: str) -> Workload:
    """Read a case; the size is the fixed one, or 1 where Modelyard would decide it."""
    text = (FOLDER / "input" / f"{name}.yaml").read_text(encoding="utf-8")
    documents = {item["kind"]: item for item in yaml.safe_load_all(text)}
    deployment = LLMDeployment.model_validate(documents["LLMDeployment"])
    option = deployment.spec.placement.accelerators[0]
    scaling = deployment.spec.scaling
    replicas = deployment.spec.replicas if scaling is None else None if scaling.actuator == "External" else 1
    return Workload(
        deployment=deployment,
        accelerator=AcceleratorClass.model_validate(documents["AcceleratorClass"]),
        count=(option.count or 1) * option.nodes,
        replicas=replicas,
        pipeline=_PIPELINES.get(name, option.nodes),
        nodes=option.nodes,
        spot=name in _SPOT_CASES,
        fitting_context=_FITTING_CONTEXTS.get(name),
    )


def build_case(name: str) -> tuple[dict[str, Any], ...]:
    """Build the children of a case."""
    return build_children([read_workload(name)], MIRRORED if name in _MIRRORED_CASES else SETTINGS)


def pod_templates(workload: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the pod templates of a Deployment, or of a LeaderWorkerSet: the leader's first."""
    spec = workload["spec"]
    if workload["kind"] == "Deployment":
        return [spec["template"]]
    group = spec["leaderWorkerTemplate"]
    return [group["leaderTemplate"], group["workerTemplate"]]


def dump(children: tuple[dict[str, Any], ...]) -> str:
    """Write the children as YAML, keys sorted."""
    return yaml.dump_all(children, Dumper=_Dumper, default_flow_style=False, width=110)


def broken_rules(model: BaseModel) -> Iterator[str]:
    """Yield the names of the cross-field rules that a kind breaks, at any depth."""
    rules: tuple[Any, ...] = getattr(type(model), "RULES", ())
    yield from (rule.name for rule in rules if not rule.holds(model))
    for name in type(model).model_fields:
        value = getattr(model, name)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, BaseModel):
                yield from broken_rules(item)
