"""A sync after a reconcile shows no difference, as Argo CD and Flux look for one: server-side apply in a dry run."""

import copy
from typing import Any

import pytest
import yaml

from modelyard.api.meta import FIELD_MANAGER, UNOBSERVED
from tests.apiserver.client import APPLY
from tests.gitops.conftest import Site
from tests.gitops.health import EXAMPLES, ArgoHealth, kstatus

ARGO_CD, FLUX = "argocd-controller", "kustomize-controller"
"""Field managers that the tools apply under
(https://argo-cd.readthedocs.io/en/stable/user-guide/sync-options/#server-side-apply,
https://fluxcd.io/flux/faq/#why-are-kubectl-edits-rolled-back-by-flux)."""

HEALTH = ArgoHealth()


def compared(body: dict[str, Any]) -> dict[str, Any]:
    """Return what both tools compare: all but the status and what the API server keeps for itself."""
    kept = {"name", "namespace", "labels", "annotations", "finalizers", "ownerReferences", "generation"}
    metadata = {key: value for key, value in body["metadata"].items() if key in kept}
    return {**{key: value for key, value in body.items() if key != "status"}, "metadata": metadata}


def managers(body: dict[str, Any], *, status: bool = False) -> set[str]:
    """Return who owns fields of an object, or of its status."""
    return {
        item["manager"]
        for item in body["metadata"]["managedFields"]
        if (item.get("subresource") == "status") == status
    }


@pytest.mark.parametrize("tool", [ARGO_CD, FLUX])
def test_a_sync_after_a_reconcile_shows_no_difference(
    site: Site, examples: list[dict[str, Any]], tool: str
) -> None:
    for manifest in examples:
        assert site.apply(manifest, tool).status in {200, 201}
    watched = [item for item in examples if item["kind"] != "AcceleratorClass"]
    for manifest in watched:
        site.wait_reconciled(manifest)
    for manifest in examples:
        planned = site.apply(manifest, tool, dry_run=True)
        assert (planned.status, planned.warnings) == (200, ()), planned.message
        live = site.read(manifest)
        assert compared(planned.body) == compared(live), manifest["metadata"]["name"]
        # The operator owns no field but those of the status.
        assert tool in managers(live)
        assert FIELD_MANAGER not in managers(live)
        assert managers(live, status=True) == ({FIELD_MANAGER} if manifest in watched else set())


def test_a_change_is_a_difference(site: Site, examples: list[dict[str, Any]]) -> None:
    manifest = next(item for item in examples if item["metadata"]["name"] == "llama-3-1-8b")
    site.apply(manifest, ARGO_CD)
    changed = copy.deepcopy(manifest)
    changed["spec"]["scaling"]["max"] += 1
    planned = site.apply(changed, ARGO_CD, dry_run=True)
    assert compared(planned.body) != compared(site.read(manifest))


def test_both_tools_wait_for_what_nobody_has_looked_at_and_then_agree(
    site: Site, examples: list[dict[str, Any]]
) -> None:
    for manifest in examples:
        site.apply(manifest, ARGO_CD)
    original = next(item for item in examples if item["metadata"]["name"] == "llama-3-1-8b")
    manifest = copy.deepcopy(original)
    manifest["metadata"]["name"] = "sync-watched"
    manifest["spec"]["model"]["name"] = "sync-watched"
    created = site.apply(manifest, ARGO_CD).body
    assert created["status"] == {"observedGeneration": UNOBSERVED}
    assert (HEALTH.judge(created)[0], kstatus(created)) == ("Progressing", "InProgress")
    site.wait_reconciled(manifest)
    done = site.read(manifest)
    assert (HEALTH.judge(done)[0], kstatus(done)) == ("Healthy", "Current")
    off = copy.deepcopy(manifest)
    off["spec"]["suspend"] = True
    site.apply(off, ARGO_CD)
    site.wait_reconciled(manifest)
    assert HEALTH.judge(site.read(manifest))[0] == "Suspended"
    site.server.request("DELETE", site.place(manifest))


def test_the_health_checks_leave_the_rest_of_argo_cds_configuration_alone(site: Site) -> None:
    path = f"/api/v1/namespaces/{site.models}/configmaps/argocd-cm"
    before = {"url": "https://argo.example", "resource.customizations.health.example.com_Thing": "return {}"}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "argocd-cm"}, "data": before}
    assert site.server.request("PATCH", f"{path}?fieldManager=argo-cd", body, APPLY).status == 201
    patch = yaml.safe_load((EXAMPLES / "argocd/argocd-cm.yaml").read_text())
    patch["metadata"]["namespace"] = site.models
    reply = site.server.request(
        "PATCH", f"{path}?fieldManager=modelyard-health&fieldValidation=Strict", patch, APPLY
    )
    assert (reply.status, reply.warnings) == (200, ()), reply.message
    assert reply.body["data"] == {**before, **patch["data"]}
    assert len(reply.body["data"]) == len(before) + 6
