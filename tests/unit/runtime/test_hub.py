"""Reading profiles from a stand-in of the hub on this machine, and from folders."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from modelyard.api.meta import Refusal
from modelyard.api.modelprofile import ModelProfile
from modelyard.runtime.hub import read_local, read_profile

CONFIG: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "max_position_embeddings": 4096,
    "model_type": "llama",
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
    "vocab_size": 8000,
}
COUNTED = 2 * 8000 * 256 + 4 * (2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 512 + 2 * 256) + 256
"""Parameters by the architecture: embeddings, four layers (attention, feed-forward, norms) and the last norm."""
CONFIG_PATH = "/acme/tiny/resolve/main/config.json"
API_PATH = "/api/models/acme/tiny?expand=safetensors"
WEIGHTS_PATH = "/acme/tiny/resolve/main/model.safetensors"
TIMEOUT = 20.0


def safetensors(tensors: dict[str, tuple[str, list[int]]]) -> bytes:
    """The beginning of a safetensors file, and eight bytes of weights."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for name, (kind, shape) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [0, 8]}
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + bytes(8)


class StandInHub:
    """Answers by path. What a path has no answer for is 404, as the hub says it of a file."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.hanging: set[str] = set()
        self.trickling: set[str] = set()
        self.released = threading.Event()
        self.requests: list[str] = []
        self.tokens: list[str | None] = []
        self.sent = 0

    def serve(self, path: str, body: Any, status: int = 200, **headers: str) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers[path] = (status, named, raw)

    def read(
        self, source: str = "hf://acme/tiny", timeout: float = TIMEOUT, **options: Any
    ) -> ModelProfile | Refusal:
        return read_profile(source, endpoint=self.endpoint, token=options.get("token"), timeout=timeout)


def handler_of(state: list[StandInHub]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub = state[0]
            hub.requests.append(self.path)
            hub.tokens.append(self.headers.get("Authorization"))
            if self.path in hub.hanging:
                hub.released.wait(60)
                return
            status, headers, body = hub.answers.get(
                self.path, (404, {"X-Error-Code": "EntryNotFound"}, b"{}")
            )
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            try:
                if self.path in hub.trickling:
                    for byte in body:
                        self.wfile.write(bytes([byte]))
                        if hub.released.wait(0.02):
                            return
                for start in range(0, len(body), 65536):
                    self.wfile.write(body[start : start + 65536])
                    hub.sent += len(body[start : start + 65536])
            except OSError:
                self.close_connection = True

        def log_message(self, *arguments: Any) -> None:
            """Stay quiet."""

    return Handler


@pytest.fixture
def hub() -> Iterator[StandInHub]:
    state: list[StandInHub] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(state))
    server.daemon_threads = True
    state.append(StandInHub(f"http://127.0.0.1:{server.server_port}"))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield state[0]
    state[0].released.set()
    server.shutdown()
    thread.join()
    server.server_close()


def refusal_of(result: ModelProfile | Refusal) -> Refusal:
    assert isinstance(result, Refusal), result
    return result


def profile_of(result: ModelProfile | Refusal) -> ModelProfile:
    assert isinstance(result, ModelProfile), result
    return result


class TestReading:
    def test_the_hubs_own_count_is_taken(self, hub):
        hub.serve(CONFIG_PATH, CONFIG)
        hub.serve(
            API_PATH,
            {"id": "acme/tiny", "safetensors": {"parameters": {"BF16": 6_500_000, "I64": 77}, "total": 1}},
        )
        profile = profile_of(hub.read())
        assert (profile.parameters, profile.layers, profile.kv_heads) == (6_500_000, 4, 2)
        assert hub.requests == [CONFIG_PATH, API_PATH]
        assert hub.tokens == [None, None]

    def test_a_bare_path_and_a_token_and_a_revision(self, hub):
        config, api = (
            "/acme/tiny/resolve/v1.0/config.json",
            "/api/models/acme/tiny/revision/v1.0?expand=safetensors",
        )
        hub.serve(config, CONFIG)
        hub.serve(api, {"safetensors": {"parameters": {"F16": 6_500_000}}})
        assert profile_of(hub.read("acme/tiny@v1.0", token="hf_secret")).parameters == 6_500_000
        assert hub.requests == [config, api]
        assert hub.tokens == ["Bearer hf_secret"] * 2

    def test_a_token_saved_on_this_machine_is_not_sent(self, hub, monkeypatch):
        monkeypatch.setenv("HF_TOKEN", "hf_saved")
        hub.serve(CONFIG_PATH, CONFIG)
        profile_of(hub.read())
        assert set(hub.tokens) == {None}

    def test_without_the_hubs_count_the_header_of_the_weight_file_is_read_and_no_more(self, hub):
        hub.serve(CONFIG_PATH, CONFIG)
        hub.serve(API_PATH, {"id": "acme/tiny"})
        weights = safetensors({"a": ("BF16", [3000, 1000]), "b": ("BF16", [2500, 1400]), "c": ("I64", [9])})
        hub.serve(WEIGHTS_PATH, weights + bytes(64 * 1024 * 1024))
        assert profile_of(hub.read()).parameters == 6_500_000
        assert hub.requests == [CONFIG_PATH, API_PATH, WEIGHTS_PATH]
        assert hub.sent < 32 * 1024 * 1024

    def test_without_any_count_the_architecture_is_counted(self, hub):
        hub.serve(CONFIG_PATH, CONFIG)
        assert profile_of(hub.read()).parameters == COUNTED

    def test_packed_weights_are_counted_by_the_architecture(self, hub):
        hub.serve(CONFIG_PATH, CONFIG | {"quantization_config": {"quant_method": "awq", "bits": 4}})
        hub.serve(API_PATH, {"safetensors": {"parameters": {"I32": 300_000, "F16": 4_100_000}}})
        profile = profile_of(hub.read())
        assert (profile.parameters, profile.quantization) == (COUNTED, "awq")

    def test_float8_weights_without_a_statement(self, hub):
        hub.serve(CONFIG_PATH, CONFIG)
        hub.serve(API_PATH, {"safetensors": {"parameters": {"F8_E4M3": 6_000_000, "F32": 400_000}}})
        profile = profile_of(hub.read())
        assert (profile.parameters, profile.quantization) == (6_400_000, "fp8")

    def test_modelopt_states_the_quantisation_in_a_file_of_its_own(self, hub):
        hub.serve(CONFIG_PATH, CONFIG)
        hub.serve(API_PATH, {"safetensors": {"parameters": {"U8": 3_000_000, "F8_E4M3": 100_000}}})
        stated = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4"}}
        hub.serve("/acme/tiny/resolve/main/hf_quant_config.json", stated)
        profile = profile_of(hub.read())
        assert (profile.parameters, profile.quantization) == (COUNTED, "nvfp4")

    def test_packed_weights_without_a_statement_are_refused(self, hub):
        hub.serve(CONFIG_PATH, CONFIG)
        hub.serve(API_PATH, {"safetensors": {"parameters": {"U8": 3_000_000}}})
        refusal = refusal_of(hub.read())
        assert refusal.reason == "UnreadableModelConfig"
        assert "stored as U8" in refusal.message

    def test_the_tag_of_a_gguf_file_is_the_quantisation(self, hub):
        hub.serve(CONFIG_PATH, CONFIG)
        assert profile_of(hub.read("hf://acme/tiny:Q5_K_M@main")).quantization == "Q5_K_M"
        assert "no name of a quantisation" in refusal_of(hub.read("hf://acme/tiny:v1.2")).message


class TestRefusing:
    @pytest.mark.parametrize(
        ("status", "code", "reason", "words"),
        [
            (403, "GatedRepo", "ModelGated", ("model.tokenSecret", "licence")),
            (401, "GatedRepo", "ModelGated", ("model.tokenSecret",)),
            (403, "", "ModelGated", ("model.tokenSecret",)),
            (401, "RepoNotFound", "ModelNotFound", ("model.source", "model.tokenSecret")),
            (404, "RepoNotFound", "ModelNotFound", ("model.source", "model.tokenSecret")),
            (404, "RevisionNotFound", "ModelNotFound", ("revision", "model.source")),
            (404, "EntryNotFound", "ModelNotFound", ("no config.json", "model.profile")),
            (404, "", "ModelNotFound", ("model.source",)),
            (500, "", "HubUnreachable", ("500", "model.profile")),
            (429, "", "HubUnreachable", ("429", "model.profile")),
        ],
    )
    def test_errors_of_the_hub(self, hub, status, code, reason, words):
        headers = {"X_Error_Code": code} if code else {}
        hub.serve(CONFIG_PATH, b"<html>no</html>", status, **headers)
        refusal = refusal_of(hub.read())
        assert refusal.reason == reason
        for word in ("acme/tiny", *words) if code != "EntryNotFound" else words:
            assert word in refusal.message

    def test_a_config_above_the_limit(self, hub):
        hub.serve(CONFIG_PATH, json.dumps(CONFIG).encode() + b" " * 64 * 1024 * 1024)
        refusal = refusal_of(hub.read())
        assert (refusal.reason, "larger than 1048576 bytes" in refusal.message) == (
            "UnreadableModelConfig",
            True,
        )
        assert hub.sent < 32 * 1024 * 1024

    @pytest.mark.parametrize(
        "body", [b"[" * 500_000, b"\xff\xfe", b"[]", b"", b'{"a": ' + b"9" * 10_000 + b"}"]
    )
    def test_a_config_that_is_no_json_object(self, hub, body):
        hub.serve(CONFIG_PATH, body)
        assert "config.json of the model is no JSON object" in refusal_of(hub.read()).message

    def test_a_damaged_weight_file(self, hub):
        hub.serve(CONFIG_PATH, CONFIG)
        hub.serve(API_PATH, {})
        for damaged in (
            b"",
            b"abc",
            b"\xff" * 64,
            (20).to_bytes(8, "little") + b"{",
            safetensors({"a": ("F16", [-1])}),
        ):
            hub.serve(WEIGHTS_PATH, damaged)
            assert "model.safetensors of the model is damaged" in refusal_of(hub.read()).message

    def test_a_hub_that_hangs(self, hub):
        hub.hanging.add(CONFIG_PATH)
        refusal = refusal_of(hub.read(timeout=0.2))
        assert refusal.reason == "HubUnreachable"
        assert "within 0.2 s" in refusal.message
        assert "model.profile" in refusal.message

    def test_a_hub_that_trickles(self, hub):
        hub.serve(CONFIG_PATH, json.dumps(CONFIG).encode() * 100)
        hub.trickling.add(CONFIG_PATH)
        assert "within 0.3 s" in refusal_of(hub.read(timeout=0.3)).message

    def test_a_hub_that_is_not_there(self):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
            refusal = refusal_of(
                read_profile("hf://acme/tiny", endpoint=endpoint, token=None, timeout=TIMEOUT)
            )
        assert refusal.reason == "HubUnreachable"
        assert endpoint in refusal.message

    @pytest.mark.parametrize(
        "source", ["hf://acme", "acme/../../etc", "pvc://claim/folder", "https://x/y", "", "a/b@c/d"]
    )
    def test_a_source_of_another_form_is_not_asked_for(self, hub, source):
        assert refusal_of(hub.read(source)).reason == "ModelNotFound"
        assert hub.requests == []


class TestFolder:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "config.json").write_text(json.dumps(CONFIG))
        return tmp_path

    def test_without_weights_the_architecture_is_counted(self, folder):
        assert profile_of(read_local(folder)).parameters == COUNTED

    def test_the_index_says_which_files_count(self, folder):
        for number in (1, 2):
            part = safetensors({f"t{number}": ("BF16", [number * 1000, 1000])})
            (folder / f"model-{number}.safetensors").write_bytes(part)
        (folder / "consolidated.safetensors").write_bytes(safetensors({"copy": ("BF16", [3000, 1000])}))
        assert profile_of(read_local(folder)).parameters == 6_000_000
        index = {"weight_map": {"t1": "model-1.safetensors", "t2": "model-2.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        assert profile_of(read_local(folder)).parameters == 3_000_000

    def test_a_single_file_counts_alone(self, folder):
        (folder / "model.safetensors").write_bytes(safetensors({"t": ("BF16", [2000, 1000])}))
        (folder / "consolidated.safetensors").write_bytes(safetensors({"copy": ("BF16", [2000, 1000])}))
        assert profile_of(read_local(folder)).parameters == 2_000_000

    @pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "a/b", ""])
    def test_an_index_that_leaves_the_folder(self, folder, name):
        index = {"weight_map": {"t": name}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        assert isinstance(read_local(folder), Refusal)

    def test_a_missing_shard_and_a_damaged_one(self, folder):
        index = {"weight_map": {"t": "model-1.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        assert "model-1.safetensors is missing" in refusal_of(read_local(folder)).message
        (folder / "model-1.safetensors").write_bytes(b"not weights at all")
        assert "is damaged" in refusal_of(read_local(folder)).message

    def test_a_folder_without_a_config(self, tmp_path):
        assert "no config.json" in refusal_of(read_local(tmp_path)).message
        assert isinstance(read_local(tmp_path / "absent"), Refusal)

    def test_a_pipe_in_the_place_of_the_config_does_not_block(self, tmp_path):
        os.mkfifo(tmp_path / "config.json")
        assert isinstance(read_local(tmp_path), Refusal)

    def test_a_config_above_the_limit(self, folder):
        (folder / "config.json").write_bytes(b" " * (1024 * 1024 + 1))
        assert "larger than 1048576 bytes" in refusal_of(read_local(folder)).message
