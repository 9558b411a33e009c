"""Checkov's policies for Kubernetes, on every combination. It runs in an environment of its own (dev/tools/checkov)."""

import hashlib
import json
import os
import shutil
import subprocess

from dev.charts.helm import ROOT
from dev.cluster.binaries import cache_folder
from tests.chart.combinations import FOLDER, NAMES

PROJECT = ROOT / "dev" / "tools" / "checkov"

SKIPPED = {
    "CKV_K8S_11": "no CPU limits by default: a throttled proxy or operator is slow where the node has time to spare",
    "CKV_K8S_15": "IfNotPresent: images have versions, and a node whose registry is away can start pods",
    "CKV_K8S_38": "the operator needs its token, and only its pods have one",
    "CKV_K8S_40": "on OpenShift the platform chooses the user ids; elsewhere they are above 10,000",
    "CKV_K8S_43": "digests are values: those of your own image are not known here",
}
"""Policies that are not kept, with the reason."""


def run_checkov(folder):
    lock = hashlib.sha256((PROJECT / "uv.lock").read_bytes()).hexdigest()[:12]
    uv = shutil.which("uv") or str(ROOT / ".tools" / "uv" / "bin" / "uv")
    command = [
        uv,
        "run",
        "--frozen",
        "--no-progress",
        f"--project={PROJECT}",
        "checkov",
        f"--directory={folder}",
    ]
    command += [
        "--framework=kubernetes",
        "--output=json",
        "--compact",
        "--quiet",
        "--skip-download",
        "--soft-fail",
    ]
    own = {"UV_PROJECT_ENVIRONMENT": str(cache_folder() / f"checkov-{lock}"), "VIRTUAL_ENV": ""}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **own})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_policies_are_kept_except_those_that_are_explained():
    found = run_checkov(FOLDER / "golden")
    summary = found["summary"]
    assert (summary["parsing_errors"], summary["failed"] > 0) == (0, True)
    assert summary["resource_count"] > 10 * len(NAMES), "every file was read"
    failed = {(item["check_id"], item["file_path"]) for item in found["results"]["failed_checks"]}
    # An entry of the list that is not needed any more is a fault, too.
    assert {check for check, _ in failed} == SKIPPED.keys(), sorted(failed)
