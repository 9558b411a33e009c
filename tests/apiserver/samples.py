"""What each pattern is meant to accept and to refuse."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, Final, get_args

from pydantic import StringConstraints

from modelyard.api import llmdeployment, meta, quantities
from modelyard.api.acceleratorclass import AcceleratorClassSpec
from modelyard.api.engines import ENGINE_PARAMETERS
from modelyard.api.llmbudget import LLMBudgetStatus, ObjectKey
from modelyard.api.llmdeployment import Engine, Model, TokenSecret
from modelyard.api.llmprovider import BaseUrl, LLMProviderSpec
from modelyard.api.routetargets import HeaderMatch
from modelyard.api.scaling import CronText, TimeZoneName


@dataclass(frozen=True)
class Samples:
    """Strings on both sides of a pattern."""

    accepted: tuple[str, ...]
    refused: tuple[str, ...]
    stretch: Callable[[int], str]
    """Returns a good string of the given length (a bad one only where the pattern itself ends sooner)."""
    shortest: str = ""
    """The shortest string that the field may hold."""


def _pattern(annotated: Any) -> str:
    """Return the pattern of an annotated string, alone or in an optional."""
    found = [
        item.pattern
        for part in (annotated, *get_args(annotated))
        for item in getattr(part, "__metadata__", ())
        if isinstance(item, StringConstraints)
    ]
    return str(found[0])


def _field_pattern(model: type[meta.ApiModel], field: str) -> str:
    info = model.model_fields[field]
    found = [item.pattern for item in info.metadata if getattr(item, "pattern", None)]
    return str(found[0]) if found else _pattern(info.annotation)


def _letters(length: int) -> str:
    return "a" * length


def _duration(length: int) -> str:
    """Return 1h, padded with zeros: `00001h00000m0000000s` is the longest way to say it."""
    return "00001h00000m" + "0" * (length - len("00001h00000ms")) + "s"


def _minutes(length: int) -> str:
    """Return a cron expression that names the same minute again and again."""
    lists = length - len(" * * * *")
    return ("0" if lists % 2 else "00") + ",0" * ((lists - 1) // 2) + " * * * *"


PATTERN_SAMPLES: Final[Mapping[str, Samples]] = {
    "": Samples(("",), (), _letters),
    llmdeployment.SOURCE_PATTERN: Samples(
        (
            "hf://org/repository",
            "hf://org/repository:Q4_K_M",
            "hf://org/repository@abc123",
            "hf://Org-1/repo.v2:tag@main",
            "pvc://claim",
            "pvc://claim/models/llama",
        ),
        (
            "",
            "org/repository",
            "hf://org",
            "hf://org/repository/file",
            "hf://org/../repository",
            "hf://org/repository;id",
            "hf://org/$(id)",
            "hf://org/repository\n",
            "https://example.com/model",
            "pvc://claim/../other",
            "pvc://Claim",
        ),
        lambda length: "hf://org/" + "r" * (length - len("hf://org/")),
    ),
    _pattern(meta.ModelName): Samples(
        ("a", "llama-3.1-8b", "org/model:tag", "Model_1"),
        (" a", "-a", "a b", "a\n", "ü", 'a"b'),
        _letters,
        shortest="a",
    ),
    _pattern(meta.DnsSubdomain): Samples(
        ("a", "a-b", "a.b-c.d", "0"), ("A", "-a", "a-", "a..b", ".a", "a_b", ""), _letters
    ),
    _pattern(meta.DnsLabel): Samples(("a", "a-b", "0"), ("A", "-a", "a-", "a.b", "a_b", ""), _letters),
    _pattern(meta.LabelKey): Samples(
        ("a", "example.com/a", "A_b.c", "topology.kubernetes.io/zone"),
        ("-a", "a/", "/a", "a/b/c", "a b", "Example.com/a", "ü"),
        lambda length: "a" * (length - 64) + "/" + "b" * 63 if length > 64 else "a" * length,
        shortest="a",
    ),
    _pattern(meta.LabelValue): Samples(("", "a", "A_b.c-1"), ("-a", "a-", "a/b", "a b", "ü"), _letters),
    quantities.DURATION_PATTERN: Samples(
        ("1m", "60s", "1h", "0h1m30s", "00001h00000m0000000s"),
        ("10", "-1m", "1.5m", "1d", "1s1m", "1m ", "5 m", "100ms"),
        _duration,
        shortest="1h",
    ),
    _pattern(CronText): Samples(
        ("* * * * *", "0 8 * * 1-5", "30 6-22/2 1,15 * MON-FRI"),
        ("0 8 ? * 1", "0 8 * * 1#1", "0\t8 * * 1-5", "0 8 * * 1-5\n", "TZ=UTC 0 8 * * *", "0 8 * * ü"),
        _minutes,
    ),
    _pattern(TimeZoneName): Samples(
        ("UTC", "Europe/Berlin", "America/Port-au-Prince", "Etc/GMT+5", "America/North_Dakota/Center"),
        ("Europe/", "/UTC", "Europe/Berlin\n", "../UTC", "Europe Berlin", "+01:00"),
        # The longest name that there is.
        lambda length: "America/Argentina/ComodRivadavia" + "x" * (length - 32),
        shortest="GB",
    ),
    _pattern(quantities.Latency): Samples(
        ("50ms", "2s", "000001s"),
        ("50", "1.5s", "-1s", "1m", "50 ms", "1s500ms", "ms"),
        lambda length: "100".rjust(length - 2, "0") + "ms",
        shortest="1s",
    ),
    _pattern(quantities.Quantity): Samples(
        ("1", "500m", "1.5", "16Gi", "80G"),
        ("-1", "1e3", ".5", "1 Gi", "1GiB", "1gi", "Gi"),
        lambda length: "1" * length,
        shortest="1",
    ),
    _pattern(quantities.Price): Samples(
        ("0.31", "1", "1.25", "2.000001"),
        ("-1", "$1", "1,5", "1.", ".5", "1e2", "1234567", "1.0000001"),
        lambda length: "000001." + "0" * (length - len("000001.")),
        shortest="1",
    ),
    _pattern(quantities.Quality): Samples(
        ("0", "1", "0.5", "0.8125", "1.0", "1.0000"),
        ("-0", ".5", "1.", "1.1", "2", "01", "0,5", "0.5 ", "50%"),
        lambda length: "0." + "5" * (length - 2),
        shortest="1",
    ),
    _pattern(quantities.Money): Samples(
        ("100", "0.5", "999999999.999999"),
        ("-1", "$1", "1,000", "1.", ".5", "1e6", "1234567890", "1.0000001"),
        lambda length: "000000001." + "0" * (length - len("000000001.")),
        shortest="1",
    ),
    _pattern(quantities.Share): Samples(
        ("0.8", "1", "0.05", "1.0", "0.9999"),
        ("0", "1.1", "2", ".8", "80%", "0,8", "0.8 ", "00.8"),
        lambda length: "0." + "5" * (length - 2),
        shortest="1",
    ),
    _pattern(ObjectKey): Samples(
        ("a/b", "team/llama-3-1-8b", "0/a.b-c.d"),
        ("a", "a/", "/a", "a/b/c", "A/b", "a/B", "a.b/c", "-a/b", "a/b-", "a/b\n"),
        lambda length: "a" * 63 + "/" + "b" * (length - 64) if length > 65 else "a/" + "b" * (length - 2),
    ),
    _field_pattern(LLMBudgetStatus, "share"): Samples(
        ("0.8125", "12", "1"), ("-1", "1."), lambda length: "1" * length
    ),
    _field_pattern(LLMBudgetStatus, "runs_out"): Samples(
        ("2026-12-24",), ("24.12.2026", "2026-12"), lambda length: "2026-12-24" + "0" * (length - 10)
    ),
    _pattern(BaseUrl): Samples(
        (
            "https://api.openai.com/v1",
            "https://generativelanguage.googleapis.com/v1beta/openai/",
            "https://localhost:8443",
            "https://x1.a-b.example:65535/",
            "https://api.example.com/Team_1/~v1.2",
        ),
        (
            "",
            "http://api.openai.com/v1",
            "api.openai.com/v1",
            "https://",
            "https://API.example.com/v1",
            "https://10.0.0.1/v1",
            "https://[::1]/v1",
            "https://user:key@example.com/v1",
            "https://example.com:0/v1",
            "https://example.com:123456/v1",
            "https://example.com/v1?key=secret",
            "https://example.com/v1#part",
            "https://example.com//v1",
            "https://example.com/../v1",
            "https://example.com/%2e%2e/v1",
            "https://example.com/v1\n",
            "https://-example.com/v1",
            "https://example..com/v1",
        ),
        lambda length: "https://example.com/" + "v" * (length - len("https://example.com/")),
    ),
    _field_pattern(HeaderMatch, "name"): Samples(
        ("X-Tier", "a", "x_tier-1"), ("-a", "a-", "a b", "a:b", ":path", "x.y", "ü"), _letters
    ),
    _field_pattern(HeaderMatch, "value"): Samples(
        ("gold", "a", "two words; q=1"), (" a", "a ", "a\nb", "ü"), _letters, shortest="a"
    ),
    _field_pattern(LLMProviderSpec, "region"): Samples(
        ("eu-west-1", "DE", "a"), ("", "-a", "a-", "eu west", "eu_west", "ü"), _letters
    ),
    _field_pattern(TokenSecret, "key"): Samples(
        ("token", "HF_TOKEN", "a.b-c"), ("a b", "a/b", "$a"), _letters, shortest="a"
    ),
    _field_pattern(Model, "quantization"): Samples(
        ("fp8", "Q4_K_M", "awq"), ("", "fp 8", "fp8;", "--fp8 x"), _letters
    ),
    _field_pattern(Engine, "version"): Samples(
        ("0.32.0", "b6500", "v1.0-rc_1"), ("", "-1", "latest:x", "a/b", "a b"), _letters
    ),
    _field_pattern(AcceleratorClassSpec, "resource_name"): Samples(
        ("nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "amd.com/gpu"),
        ("", "gpu", "cpu", "Nvidia.com/gpu", "nvidia.com/", "nvidia.com/a/b", "nvidia.com/-a"),
        lambda length: "a" * (length - 64) + "/" + "b" * 63,
    ),
}
"""Samples by pattern; the empty pattern stands for text of any kind."""

KEY_SAMPLES: Final = PATTERN_SAMPLES[_pattern(meta.LabelKey)]


def _label_keys(length: int) -> list[str]:
    return [f"example.com/key-{number}" for number in range(length)]


def _parameters(length: int) -> list[str]:
    """Return vLLM's flags, and made-up ones beyond the last."""
    made_up = (f"flag-{number}" for number in count())
    return [*ENGINE_PARAMETERS["vLLM"], *islice(made_up, length)][:length]


MAP_KEYS: Final[Mapping[str | int, Callable[[int], list[str]]]] = {
    "nodeSelector": _label_keys,
    "parameters": _parameters,
}
"""Keys that a map may hold, by the name of its field."""

DISTINCT: Final[Mapping[str | int, tuple[str, ...]]] = {"targets": ("deployment",)}
"""Fields that the items of a list must differ in, by the name of the list, where a rule says so and not the schema."""
