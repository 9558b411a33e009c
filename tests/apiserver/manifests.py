"""Manifests that the API server takes, and how to change one field of them."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Final

from modelyard.api.meta import API_VERSION

ABSENT: Final = object()
"""As a value: remove the field."""

Path = tuple[str | int, ...]


def manifest(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


PROFILE: Final[Mapping[str, Any]] = {
    "parameters": 8_030_261_248,
    "layers": 32,
    "hiddenSize": 4096,
    "attentionHeads": 32,
    "vocabularySize": 128_256,
    "contextLength": 131_072,
}
"""The fields that a profile must have: those of Llama 3.1 8B."""

BASES: Final[Mapping[str, tuple[dict[str, Any], ...]]] = {
    "LLMDeployment": (
        manifest(
            "LLMDeployment",
            "plain",
            model={"source": "hf://org/repository"},
            engine={"name": "vLLM"},
            placement={"accelerators": [{"class": "l4", "nodes": 1}]},
            replicas=1,
        ),
        manifest(
            "LLMDeployment",
            "profiled",
            model={"source": "hf://org/repository", "profile": PROFILE},
            replicas=1,
        ),
        manifest(
            "LLMDeployment",
            "full",
            model={
                "source": "hf://org/repository:Q4_K_M@main",
                "name": "org/model",
                "contextLength": 8192,
                "quantization": "fp8",
                "adapters": [{"name": "tuned", "source": "hf://org/adapter"}],
                "tokenSecret": {"name": "hub", "key": "token"},
                "profile": {
                    **PROFILE,
                    # As large as can be, so that the fields that may not be above them can be, too.
                    "parameters": 100_000_000_000_000,
                    "layers": 1_000_000,
                    "attentionHeads": 1_000_000,
                    "experts": 1_000_000,
                    "activeParameters": 3_000_000_000,
                    "keyValueHeads": 8,
                    "headDimension": 128,
                    "attention": "SlidingWindow",
                    "slidingWindow": 4096,
                    "slidingLayers": 16,
                    "latentDimension": 576,
                    "activeExperts": 1,
                    "tiedEmbeddings": True,
                    "quantization": "fp8",
                },
            },
            engine={"name": "vLLM", "version": "0.32.0", "parameters": {"max-num-seqs": "64"}},
            placement={
                "accelerators": [{"class": "l4", "count": 2, "requestsPerMinute": 180}],
                "nodeSelector": {"topology.kubernetes.io/zone": "a"},
                "priority": "high",
                "spot": {"onDemandBase": 2},
            },
            scaling={
                "min": 1,
                "max": 1000,
                "slo": {"timeToFirstToken": "500ms", "interTokenLatency": "50ms"},
                "idleAfter": "5m",
                "schedules": [
                    {
                        "name": "business-hours",
                        "start": "0 8 * * 1-5",
                        "duration": "10h",
                        "timeZone": "Europe/Berlin",
                        "min": 1,
                        "max": 1000,
                    }
                ],
                "mode": "Active",
                "actuator": "Modelyard",
            },
            load={"requestsPerMinute": 600, "inputTokens": 900, "outputTokens": 150},
            loadBalancing="PrefixAffinity",
            endpointPicker={"service": "picker", "port": 9002, "failureMode": "FailOpen"},
            rollout={"strategy": "Drain", "startTimeout": "20m", "drainTimeout": "1m"},
            suspend=False,
        ),
        # By itself: with it, not every other value of `scaling` can be.
        manifest(
            "LLMDeployment",
            "external",
            model={"source": "hf://org/repository"},
            scaling={"max": 3, "actuator": "External", "external": {"scaler": "ScaledObject"}},
        ),
    ),
    "LLMRoute": (
        manifest(
            "LLMRoute",
            "route",
            model="org/model",
            policy="Weighted",
            dataPolicy="Any",
            targets=[{"deployment": "first", "weight": 1}, {"deployment": "second", "weight": 1}],
            timeouts={"hold": "5m", "request": "5m"},
        ),
        manifest(
            "LLMRoute",
            "ruled",
            model="org/model",
            policy="Weighted",
            dataPolicy="Any",
            targets=[{"deployment": "first", "weight": 1}],
            rules=[
                {
                    "match": {
                        "tenants": ["search", "team.example"],
                        "headers": [{"name": "X-Tier", "value": "gold"}],
                    },
                    "targets": [{"deployment": "first", "weight": 1}, {"deployment": "second", "weight": 1}],
                }
            ],
        ),
        manifest(
            "LLMRoute",
            "full",
            model="org/model",
            spill=True,
            # As low as can be, so that every quality of a target reaches it.
            minQuality="0",
            targets=[
                {"provider": "openai", "model": "small", "weight": 1, "quality": "0.8"},
                {"deployment": "first", "weight": 1, "quality": "1"},
            ],
            rules=[
                {
                    "match": {"tenants": ["search"]},
                    "targets": [
                        {"provider": "openai", "model": "small", "weight": 1, "quality": "0.8"},
                        {"deployment": "first", "weight": 1, "quality": "1"},
                    ],
                }
            ],
            timeouts={"hold": "5m", "firstToken": "20s", "request": "5m"},
        ),
        manifest(
            "LLMRoute",
            "adapters",
            model="org/model",
            targets=[{"deployment": "first", "adapter": "org/lora"}],
            rules=[
                {
                    "match": {"tenants": ["acme"]},
                    "targets": [{"deployment": "first", "adapter": "org/lora"}],
                }
            ],
        ),
    ),
    "LLMProvider": (
        manifest(
            "LLMProvider",
            "plain",
            baseURL="https://api.example.com/v1",
            models=[{"name": "small"}],
        ),
        manifest(
            "LLMProvider",
            "full",
            baseURL="https://llm.example.com:8443/proxy/v1beta/openai/",
            secretRef={"name": "keys", "key": "example"},
            caSecretRef={"name": "ca", "key": "ca.crt"},
            region="eu-west-1",
            streamUsage="Always",
            limits={"requestsPerMinute": 600, "tokensPerMinute": 200_000},
            models=[
                {
                    "name": "org/large",
                    # As dear as can be, so that every price of cached tokens is below it.
                    "price": {
                        "inputPerMillion": "999999.999999",
                        "cachedInputPerMillion": "0.025",
                        "outputPerMillion": "2",
                    },
                    "quality": "0.9",
                    "contextLength": 131_072,
                }
            ],
        ),
    ),
    "LLMBudget": (
        manifest("LLMBudget", "plain", amount="100", period="Month"),
        # By itself: not every soft action goes with every scope, nor every field with every action.
        manifest(
            "LLMBudget",
            "soft",
            amount="100",
            period="Month",
            scope={"namespaces": ["team"], "deployments": ["team/llama"]},
            soft={"at": "0.8", "action": "Sleep"},
        ),
        manifest(
            "LLMBudget",
            "lower-max",
            amount="100",
            period="Day",
            soft={"at": "0.8", "action": "LowerMax", "maxShare": "0.5"},
        ),
        manifest(
            "LLMBudget",
            "full",
            amount="2500.50",
            period="Week",
            timeZone="Europe/Berlin",
            scope={
                "tenants": ["search"],
                "namespaces": ["team"],
                "routes": ["team/chat"],
                "deployments": ["team/llama"],
                "providers": ["openai"],
            },
            hard={"action": "Refuse"},
        ),
    ),
    "LLMTenant": (
        manifest("LLMTenant", "plain", keys=[{"name": "tenant-keys", "key": "plain"}]),
        manifest(
            "LLMTenant",
            "full",
            keys=[{"name": "tenant-keys", "key": "full"}, {"name": "tenant-keys", "key": "full-next"}],
            allow=[{"namespace": "team-a", "names": ["chat", "llama-3.1-8b"]}, {"namespace": "team-b"}],
            limits={"requestsPerMinute": 600, "tokensPerMinute": 100_000},
        ),
    ),
    "AcceleratorClass": (
        manifest(
            "AcceleratorClass",
            "plain",
            resourceName="nvidia.com/gpu",
            tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            billing="PerHour",
        ),
        manifest(
            "AcceleratorClass",
            "spot",
            resourceName="nvidia.com/gpu",
            spot={
                "nodeSelector": {"karpenter.sh/capacity-type": "spot"},
                "tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}],
            },
        ),
        manifest(
            "AcceleratorClass",
            "full",
            resourceName="nvidia.com/gpu",
            nodeSelector={"nvidia.com/gpu.product": "NVIDIA-L4"},
            tolerations=[
                {"key": "nvidia.com/gpu", "operator": "Equal", "value": "present", "effect": "NoSchedule"}
            ],
            runtimeClassName="nvidia",
            requests={"cpu": "4", "memory": "16Gi"},
            memory="24Gi",
            memoryBandwidth=300,
            throughput={"bf16": 121, "fp8": 242, "int8": 242},
            price={"onDemand": "5", "spot": "0.31"},
            billing="Committed",
            available=8,
            perNode=8,
            provisionTime="4m",
            spot={
                "nodeSelector": {"karpenter.sh/capacity-type": "spot"},
                "tolerations": [
                    {"key": "spot", "operator": "Equal", "value": "present", "effect": "NoSchedule"}
                ],
            },
        ),
    ),
}
"""The manifests of each kind; the first is as small as its fields allow, together they set every field."""


def smallest(kind: str) -> dict[str, Any]:
    """Return a copy of the smallest manifest of the kind."""
    return copy.deepcopy(BASES[kind][0])


def find_base(kind: str, path: Path) -> dict[str, Any]:
    """Return the smallest manifest that has the field."""
    for base in BASES[kind]:
        try:
            read_field(base, path)
        except (KeyError, IndexError):
            continue
        return base
    raise LookupError(f"no manifest of {kind} has {path}: add the field to the last one")


def read_field(document: Any, path: Path) -> Any:
    for step in path:
        document = document[step]
    return document


def change_field(document: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """Return a copy with another value at the path, whose parents are made where they are missing."""
    result = copy.deepcopy(document)
    parent: Any = result
    for step in path[:-1]:
        parent = parent.setdefault(step, {}) if isinstance(step, str) else parent[step]
    if value is ABSENT:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return result


def parse_path(text: str) -> Path:
    """Return the steps of a path such as `spec.tolerations.0.key`."""
    return tuple(int(step) if step.isdigit() else step for step in text.split("."))


def walk(schema: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Yield each node of a schema with the path of its first instance in a manifest."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from walk(child, (*path, name))
    if "items" in schema:
        yield from walk(schema["items"], (*path, 0))
    if isinstance(schema.get("additionalProperties"), Mapping):
        yield from walk(schema["additionalProperties"], (*path, "*"))
