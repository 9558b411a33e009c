"""`modelyard explain`: the numbers behind the last decision about a deployment or a route, read from its status."""

import asyncio
import json
import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.llmroute import LLMRoute
from modelyard.api.meta import split_key, wire
from modelyard.cli.explainreport import format_explanation
from modelyard.cli.explainroute import format_route
from modelyard.cli.live import find_kubeconfig
from modelyard.cli.manifests import InputError
from modelyard.core.overview.explanation import (
    ExplainReport,
    RouteReport,
    build_explanation,
    build_route_report,
)
from modelyard.core.report.model import EXIT_CODES
from modelyard.kube.client import ApiError, KubeClient
from modelyard.kube.projections import project_object
from modelyard.kube.resources import LLM_DEPLOYMENTS, LLM_ROUTES, Resource

KINDS = {
    **dict.fromkeys(("llmdep", "llmdeps", "llmdeployment", "llmdeployments"), LLM_DEPLOYMENTS),
    **dict.fromkeys(("llmr", "llmroute", "llmroutes"), LLM_ROUTES),
}

USAGE = EXIT_CODES["Invalid"]


class ExplainFormat(StrEnum):
    """How an explanation is written."""

    TEXT = "text"
    JSON = "json"
    YAML = "yaml"


def explain(
    kind: Annotated[str, typer.Argument(metavar="llmdep|llmroute", help="Kind of the object.")],
    name: Annotated[str, typer.Argument(help="Name of the object, or NAMESPACE/NAME.")],
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Namespace of the object, if NAME has none.")
    ] = "default",
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            help="Default: KUBECONFIG, ~/.kube/config, or the one around the process.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    output: Annotated[ExplainFormat, typer.Option("--output", "-o")] = ExplainFormat.TEXT,
) -> None:
    """Say why a deployment has its size, or a route its target: the last decision, its numbers, and those before it.

    The object is only read. Exits 1 if it does not exist or the cluster cannot be read, 2 for an option that is wrong.

      modelyard explain llmdep llama-3-1-8b -n team

      modelyard explain llmroute team/chat
    """
    resource = KINDS.get(kind.lower())
    if resource is None:
        raise typer.BadParameter(f"{kind!r} cannot be explained: give llmdep or llmroute", param_hint="kind")
    if "/" in name:
        namespace, name = split_key(name)
    try:
        body = asyncio.run(read_object(resource, namespace, name, kubeconfig or find_kubeconfig()))
    except InputError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(USAGE) from error
    except ApiError as error:
        typer.echo(f"Error: the cluster cannot be read: {error}", err=True)
        raise typer.Exit(1) from error
    if body is None:
        typer.echo(
            f"Error: no {resource.kind} {name} in namespace {namespace}: name another namespace with -n",
            err=True,
        )
        raise typer.Exit(1)
    try:
        report = _build(resource, body)
    except InputError as error:
        typer.echo(f"Error: {namespace}/{name} cannot be read: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(_format(report, output))


def _build(resource: Resource, body: Mapping[str, Any]) -> ExplainReport | RouteReport:
    """Return what the object says. Raises InputError where it cannot be read."""
    if resource == LLM_ROUTES:
        route = project_object(LLMRoute, body)
        if route.object is None:
            raise InputError(route.error)
        return build_route_report(route.object)
    deployment = project_object(LLMDeployment, body)
    if deployment.object is None:
        raise InputError(deployment.error)
    return build_explanation(deployment.object, find_numbers(body))


async def read_object(
    resource: Resource, namespace: str, name: str, kubeconfig: Path | None
) -> dict[str, Any] | None:
    """Return the object as the API server has it; None if there is none.

    Raises ApiError where it cannot be read, and InputError where it is not known which cluster.
    """
    if kubeconfig is None and "KUBERNETES_SERVICE_HOST" not in os.environ:
        raise InputError("no kubeconfig: give --kubeconfig, or set KUBECONFIG")
    client = await KubeClient.connect(kubeconfig)
    try:
        return await client.get(resource, namespace, name)
    finally:
        await client.close()


def find_numbers(body: Mapping[str, Any]) -> dict[str, str]:
    """Return `status.scaling.numbers`: the figures of the last decision, by name."""
    found = ((body.get("status") or {}).get("scaling") or {}).get("numbers") or {}
    return {str(name): str(value) for name, value in sorted(found.items())}


def _format(report: ExplainReport | RouteReport, output: ExplainFormat) -> str:
    if output is ExplainFormat.JSON:
        return json.dumps(wire(report), indent=2, ensure_ascii=False)
    if output is ExplainFormat.YAML:
        text: str = yaml.safe_dump(wire(report), sort_keys=False, allow_unicode=True, width=120)
        return text.rstrip("\n")
    return format_route(report) if isinstance(report, RouteReport) else format_explanation(report)
