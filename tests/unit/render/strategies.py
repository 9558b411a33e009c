"""Random valid workloads."""

from typing import Any

from hypothesis import strategies as st

from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.api.engines import ENGINE_PARAMETERS
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.render.workload import Workload

SWITCHES = {"enable-auto-tool-choice", "enable-chunked-prefill", "enable-prefix-caching", "enforce-eager"}
INTEGERS = {"batch-size", "parallel", "threads", "threads-batch", "ubatch-size"}

_NAMES = st.from_regex(r"[a-z]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
_MODEL_NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,40}", fullmatch=True)
_QUANTITIES = st.from_regex(r"[1-9][0-9]{0,3}(\.[0-9]{1,2})?(m|k|M|G|Ki|Mi|Gi)?", fullmatch=True)
_LABELS = st.dictionaries(st.sampled_from(["zone", "pool", "example.com/gpu"]), st.sampled_from(["a", "b"]))
_TRICKY = st.sampled_from(
    [
        "--trust-remote-code",
        "-1",
        "; rm -rf /",
        "$(HF_TOKEN)",
        "$HOME",
        "a b",
        "--model=x",
        "`id`",
        "$$(USER)",
    ]
)
_VALUES = _TRICKY | st.text(min_size=1, max_size=40)


@st.composite
def parameters(draw: st.DrawFn, engine: str) -> dict[str, str]:
    """Parameters of an engine with values that fit."""
    chosen: dict[str, str] = {}
    for name in draw(st.sets(st.sampled_from(ENGINE_PARAMETERS[engine]), max_size=4)):
        if name in SWITCHES:
            chosen[name] = draw(st.sampled_from(["", "true", "false"]))
        elif name in INTEGERS:
            chosen[name] = str(draw(st.integers(1, 64)))
        else:
            chosen[name] = draw(_VALUES)
    if chosen.get("enable-auto-tool-choice", "false") != "false":
        chosen.setdefault("tool-call-parser", draw(_VALUES))
    return chosen


@st.composite
def _models(draw: st.DrawFn, engine: str) -> dict[str, Any]:
    model: dict[str, Any] = {"name": draw(st.none() | _MODEL_NAMES)}
    if draw(st.booleans()):
        repository = draw(
            st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,9}/[A-Za-z0-9][A-Za-z0-9._-]{0,9}", fullmatch=True)
        )
        model["source"] = f"hf://{repository}"
        if engine == "LlamaCpp" and draw(st.booleans()):
            model["source"] += ":Q4_K_M"
        if engine == "vLLM" and draw(st.booleans()):
            model["source"] += "@main"
        if draw(st.booleans()):
            model["tokenSecret"] = {"name": draw(_NAMES), "key": "token"}
    else:
        model["source"] = f"pvc://{draw(_NAMES)}/model.gguf"
    if draw(st.booleans()):
        model["contextLength"] = draw(st.integers(128, 131_072))
    if engine == "vLLM":
        names = draw(st.lists(_MODEL_NAMES, max_size=3, unique=True))
        origins = ["hf://example/adapter", "pvc://adapters/one", "pvc://adapters"]
        model["adapters"] = [{"name": name, "source": draw(st.sampled_from(origins))} for name in names]
    return model


@st.composite
def workloads(draw: st.DrawFn, engines: tuple[str, ...] = ("vLLM", "LlamaCpp")) -> Workload:
    """Workloads that pass every rule and check."""
    engine = draw(st.sampled_from(engines))
    has_gpu = engine == "vLLM" or draw(st.booleans())
    class_spec: dict[str, Any] = {"nodeSelector": draw(_LABELS)}
    if has_gpu:
        class_spec["resourceName"] = "nvidia.com/gpu"
    if not has_gpu or draw(st.booleans()):
        class_spec["requests"] = {"cpu": draw(_QUANTITIES), "memory": draw(_QUANTITIES)}
    spec = {
        "model": draw(_models(engine)),
        "engine": {"name": engine, "parameters": draw(parameters(engine))},
        # A selector that repeats the class's is no conflict.
        "placement": {
            "accelerators": [{"class": "any"}],
            "nodeSelector": {**class_spec["nodeSelector"], "own": "x"},
        },
        "replicas": 1,
        "rollout": {
            "strategy": draw(st.sampled_from(["Surge", "Drain"])),
            "startTimeout": f"{draw(st.integers(60, 21_600))}s",
            "drainTimeout": f"{draw(st.integers(10, 3_600))}s",
        },
    }
    metadata = {"name": draw(_NAMES), "namespace": "team", "uid": "0"}
    pipeline = draw(st.sampled_from([1, 2]))
    spot = draw(st.booleans())
    if spot or draw(st.booleans()):
        class_spec["spot"] = {"nodeSelector": {"capacity": "spot", "kind": "cheap"}}
    return Workload(
        deployment=LLMDeployment.model_validate({"metadata": metadata, "spec": spec}),
        accelerator=AcceleratorClass.model_validate({"metadata": {"name": "any"}, "spec": class_spec}),
        count=draw(st.integers(1, 8)) * pipeline,
        pipeline=pipeline,
        spot=spot,
        replicas=draw(st.none() | st.integers(0, 1000)),
    )
