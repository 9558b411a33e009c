"""How Argo CD and Flux judge an object: Argo CD's script in a real Lua, the rules of kstatus, Flux's CEL."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import cel
import yaml
from lupa import lua51

EXAMPLES = Path(__file__).parents[2] / "examples"
GROUP = "modelyard.dev"

Kstatus = Literal["InProgress", "Failed", "Current", "Terminating"]

_ARGO_LIBRARIES = ("string", "math", "io", "os", "debug", "coroutine")
"""Libraries of Lua that a health script of argocd-cm has not: Argo CD opens the base functions and `table` for it
(https://argo-cd.readthedocs.io/en/stable/operator-manual/health/, `useOpenLibs`)."""


class ArgoHealth:
    """The health scripts of examples/argocd/argocd-cm.yaml, as Argo CD runs them: Lua 5.1 without its libraries."""

    def __init__(self) -> None:
        data = yaml.safe_load((EXAMPLES / "argocd/argocd-cm.yaml").read_text())["data"]
        prefix = f"resource.customizations.health.{GROUP}_"
        self.scripts = {key.removeprefix(prefix): text for key, text in data.items()}
        self._lua = lua51.LuaRuntime(unpack_returned_tuples=True)
        for name in _ARGO_LIBRARIES:
            self._lua.globals()[name] = None
        self._compiled = {
            kind: self._lua.eval(f"function(given) obj = given\n{text}\nend")
            for kind, text in self.scripts.items()
        }

    def judge(self, body: Mapping[str, Any]) -> tuple[str, str]:
        """Return health and message of an object."""
        given = self._lua.table_from(dict(body), recursive=True)
        result = self._compiled[body["kind"]](given)
        assert set(result.keys()) == {"status", "message"}
        return result["status"], result["message"]


def kstatus(body: Mapping[str, Any]) -> Kstatus:
    """Return what kstatus says of an object of a kind that it has no rules of its own for.

    After https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md, in the order in which its
    library asks: deletion, generation, the first of Reconciling and Stalled that is True, Ready, and else Current.
    """
    metadata, status = body["metadata"], body.get("status") or {}
    if metadata.get("deletionTimestamp"):
        return "Terminating"
    observed = status.get("observedGeneration")
    if observed is not None and "generation" in metadata and observed != metadata["generation"]:
        return "InProgress"
    conditions = status.get("conditions") or ()
    for condition in conditions:
        if condition["status"] == "True" and condition["type"] == "Reconciling":
            return "InProgress"
        if condition["status"] == "True" and condition["type"] == "Stalled":
            return "Failed"
    for condition in conditions:
        if condition["type"] == "Ready":
            return "Current" if condition["status"] == "True" else "InProgress"
    return "Current"


class FluxHealth:
    """The health of a Kustomization's objects, with the `healthCheckExprs` of examples/gitops/flux.yaml."""

    def __init__(self) -> None:
        documents = yaml.safe_load_all((EXAMPLES / "gitops/flux.yaml").read_text())
        specs = [document["spec"] for document in documents if document["kind"] == "Kustomization"]
        self._checks = {
            (check["apiVersion"], check["kind"]): check
            for spec in specs
            for check in spec.get("healthCheckExprs", ())
        }
        self._programs = {
            text: cel.compile(text)
            for check in self._checks.values()
            for name, text in check.items()
            if name in {"inProgress", "failed", "current"}
        }

    def judge(self, body: Mapping[str, Any]) -> Kstatus:
        """Return what Flux says of an object: the first expression that holds, after the generation.

        An expression that cannot be evaluated is an error here; Flux would wait until its timeout.
        """
        check = self._checks.get((body["apiVersion"], body["kind"]))
        if check is None:
            return kstatus(body)
        status = body.get("status") or {}
        if status.get("observedGeneration", body["metadata"]["generation"]) != body["metadata"]["generation"]:
            return "InProgress"
        words: tuple[tuple[str, Kstatus], ...] = (
            ("inProgress", "InProgress"),
            ("failed", "Failed"),
            ("current", "Current"),
        )
        for name, word in words:
            if name in check and self._programs[check[name]].execute(dict(body)) is True:
                return word
        return "InProgress"
