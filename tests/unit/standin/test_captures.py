"""Modelyard's vLLM adapter and the stand-in against what was captured of the real vLLM (`make contract-vllm`)."""

import json
from typing import Any

import pytest

from dev.standin.api import VERSION
from dev.standin.arguments import _build_parser
from dev.vllm.captures import METRICS, read_capture
from dev.vllm.environment import vllm_version
from dev.vllm.inside.flags import describe
from dev.vllm.record import REQUESTS, shape
from modelyard.api.engines import ENGINE_PARAMETERS
from modelyard.catalog.quantization import VLLM_CONVERTS, VLLM_DEPRECATED, VLLM_PLUGIN_METHODS, VLLM_READS
from modelyard.core.enginemetrics import ENGINE_BUCKETS, ENGINE_SERIES, parse_engine
from modelyard.render.engines.vllm import VLLM
from tests.golden.cases import INPUTS, read_workload
from tests.unit.standin.helpers import Launch
from tests.unit.standin.test_metrics import FIXTURE
from tests.unit.standin.test_metrics import describe as describe_page

CAPTURE = read_capture()
LEFT_OUT = {"permission", "system_fingerprint"}
"""What vLLM answers besides, and no client needs."""


def test_the_capture_is_of_the_version_that_is_pinned() -> None:
    assert CAPTURE["versions"]["vllm"] == VERSION == vllm_version()


def test_every_rendered_flag_is_one_of_vllm() -> None:
    known = {name for flag in CAPTURE["flags"] for name in flag["names"]}
    workloads = [read_workload(case) for case in INPUTS]
    rendered = {
        word.partition("=")[0]
        for workload in workloads
        if workload.deployment.spec.engine.name == "vLLM"
        for word in (
            *VLLM().build_arguments(workload),
            *VLLM().build_group_arguments(workload, leads=True),
            *VLLM().build_group_arguments(workload, leads=False),
        )
        if word.startswith("--")
    }
    assert len(rendered) > 10
    assert rendered <= known
    assert {f"--{name}" for name in ENGINE_PARAMETERS["vLLM"]} <= known


def test_the_standin_has_the_flags_of_vllm() -> None:
    ours = [describe(action) for action in _build_parser("")._actions if action.option_strings]
    assert sorted(ours, key=lambda flag: flag["names"]) == CAPTURE["flags"]


def test_quantization_methods_are_those_of_vllm() -> None:
    assert {*VLLM_CONVERTS, *VLLM_READS, *VLLM_DEPRECATED} - VLLM_PLUGIN_METHODS <= set(
        CAPTURE["quantization"]
    )


def test_the_captured_page_has_every_series_that_is_read() -> None:
    page = METRICS.read_text()
    # Other tests compute with the values of an older capture.
    assert describe_page(page) == describe_page(FIXTURE.read_text())
    reading = parse_engine("vLLM", page, 0.0)
    assert (reading.engines, reading.finished, reading.output_tokens) == (1, 1, 5)
    assert reading.first_token_buckets[-1][1] == reading.answer_pace_buckets[-1][1] == 1
    for series in (*ENGINE_SERIES["vLLM"], *ENGINE_BUCKETS["vLLM"]):
        assert f"\n{series}{{" in page or f"\n{series}_total{{" in page, series


def differences(ours: Any, vllms: Any, where: str) -> list[str]:
    """Return where a shape of ours has what vLLM's lacks, or lacks what vLLM fills."""
    if isinstance(ours, dict) and isinstance(vllms, dict):
        found = [f"{where}.{key} is not vLLM's" for key in ours.keys() - vllms.keys()]
        needed = {key for key, value in vllms.items() if value != "null"} - LEFT_OUT
        found += [f"{where}.{key} is missing" for key in needed - ours.keys()]
        for key in ours.keys() & vllms.keys():
            found += differences(ours[key], vllms[key], f"{where}.{key}")
        return found
    if isinstance(ours, list) and isinstance(vllms, list):
        if not all(any(not differences(item, other, where) for other in vllms) for item in ours):
            return [f"{where} is {ours}, vLLM's is {vllms}"]
        return []
    return [] if ours == vllms else [f"{where} is {ours}, vLLM's is {vllms}"]


@pytest.mark.parametrize("name", [*REQUESTS, "models", "version"])
async def test_the_standin_answers_in_the_shape_of_vllm(launch: Launch, name: str) -> None:
    running = await launch("--enable-prompt-tokens-details", "--max-model-len", "1024", output_tokens=50)
    expected = CAPTURE["answers"][name]
    if name in REQUESTS:
        path, body = REQUESTS[name]
        response = await running.client.post(path, json={**body, "model": body["model"].replace("tiny", "m")})
    else:
        path = {"models": "/v1/models", "version": "/version"}[name]
        response = await running.client.get(path)
    assert response.status == expected["status"]
    text = await response.text()
    if response.content_type == "text/event-stream":
        parts = [part.removeprefix("data: ") for part in text.split("\n\n") if part]
        assert parts.pop() == "[DONE]"
        objects = [json.loads(part) for part in parts]
    else:
        objects = [await response.json()]
    assert differences(shape(objects), expected["objects"], name) == []
