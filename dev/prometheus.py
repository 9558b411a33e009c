"""A real Prometheus, scraping one operator and one Envoy or over what was scraped before, and what is asked of it."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from dev.cluster.processes import Component, free_ports, responds
from dev.stack import LOOPBACK, Ports

STEP = 5
"""Seconds between two points of a range."""

INSTALLATION = "modelyard-system"
"""The namespace of the targets, as monitors tell it: that of the rules before the chart puts in its own."""


class PrometheusError(Exception):
    """Prometheus refused to answer."""


class Prometheus:
    """The process and its HTTP API. Without ports it scrapes nothing and answers from what its folder holds.

    `scrape_interval` is in seconds.
    """

    def __init__(
        self,
        programs: Path,
        folder: Path,
        ports: Ports | None,
        rules: Iterable[Path] = (),
        *,
        scrape_interval: int = 1,
    ) -> None:
        (self.port,) = free_ports(1)
        self.url = f"http://{LOOPBACK}:{self.port}"
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "prometheus.yaml"
        jobs = (
            (("operator", ports.health, "/metrics"), ("gateway", ports.stats, "/stats/prometheus"))
            if ports
            else ()
        )
        interval = f"{scrape_interval}s"
        content = {
            "global": {
                "scrape_interval": interval,
                "scrape_timeout": interval,
                "evaluation_interval": interval,
            },
            "rule_files": [str(path) for path in rules],
            "scrape_configs": [
                {
                    "job_name": name,
                    "metrics_path": path,
                    # The labels `namespace` and `pod` are those of the object where it has them, not of the target.
                    "honor_labels": True,
                    "static_configs": [
                        {"targets": [f"{LOOPBACK}:{port}"], "labels": {"namespace": INSTALLATION}}
                    ],
                }
                for name, port, path in jobs
            ],
        }
        config.write_text(yaml.safe_dump(content), encoding="utf-8")
        command = [str(programs / "prometheus"), f"--config.file={config}"]
        command += [f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={LOOPBACK}:{self.port}"]
        self.process = Component(
            "prometheus", command, folder / "prometheus.log", lambda: responds(self.port, "/-/ready")
        )

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the `data` of an answer. Raises PrometheusError with Prometheus' words for an error."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as reply:  # noqa: S310 - its own address
                return json.load(reply)["data"]
        except urllib.error.HTTPError as error:
            raise PrometheusError(f"{parameters}: {error.read().decode()}") from error

    def instant(self, expression: str, at: float | None = None) -> list[dict[str, Any]]:
        """Return the series that an expression has now, or had at a Unix time."""
        asked = {"query": expression, **({} if at is None else {"time": str(at)})}
        return [item for item in self.ask("query", **asked)["result"] if _is_number(item["value"][1])]

    def range(self, expression: str, begin: float, end: float, step: int = STEP) -> list[dict[str, Any]]:
        """Return the series that an expression had between two Unix times, without those that have no number.

        Points lie on multiples of `step`, in seconds, as Grafana has them.
        """
        start, stop = (str(int(time // step) * step) for time in (begin, end))
        asked = {"query": expression, "start": start, "end": stop, "step": str(step)}
        found = self.ask("query_range", **asked)["result"]
        return [item for item in found if any(_is_number(value) for _, value in item["values"])]

    def targets(self) -> dict[str, str]:
        """Return the health of each job."""
        found = self.ask("targets", state="active")["activeTargets"]
        return {item["labels"]["job"]: f"{item['health']} {item['lastError']}".strip() for item in found}

    def alerts(self) -> dict[str, dict[str, Any]]:
        """Return each alerting rule by name, with health and state."""
        groups = self.ask("rules", type="alert")["groups"]
        return {rule["name"]: rule for group in groups for rule in group["rules"]}


def _is_number(text: str) -> bool:
    return not math.isnan(float(text))
