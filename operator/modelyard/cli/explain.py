"""`modelyard explain`: the numbers behind the last decision about a deployment or a route, read from its status."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.llmroute import LLMRoute
from modelyard.api.meta import wire
from modelyard.cli.connect import UNREADABLE, connect_cluster, run_command
from modelyard.cli.data import to_json, to_yaml
from modelyard.cli.explainpods import EVENTS_SHOWN, describe_pod, read_event_rows
from modelyard.cli.explainreport import format_explanation
from modelyard.cli.explainroute import format_route
from modelyard.cli.kubeconfig import Context, Kubeconfig
from modelyard.cli.logsread import list_pods
from modelyard.cli.manifests import InputError
from modelyard.cli.status import suggest_names
from modelyard.cli.target import Namespace, read_target
from modelyard.core.overview.explanation import (
    ExplainReport,
    RouteReport,
    build_explanation,
    build_route_report,
)
from modelyard.kube.client import ApiError, KubeClient
from modelyard.kube.projections import project_object
from modelyard.kube.resources import LLM_DEPLOYMENTS, LLM_ROUTES, Resource

KINDS = {
    **dict.fromkeys(("llmdep", "llmdeps", "llmdeployment", "llmdeployments"), LLM_DEPLOYMENTS),
    **dict.fromkeys(("llmr", "llmroute", "llmroutes"), LLM_ROUTES),
}


class ExplainFormat(StrEnum):
    """How an explanation is written."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def explain(
    kind: Annotated[str, typer.Argument(metavar="llmdep|llmroute", help="Kind of the object.")],
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Name of the object, or NAMESPACE/NAME. Both in one word: llmdep/NAME.",
            show_default=False,
        ),
    ] = None,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    output: Annotated[ExplainFormat, typer.Option("--output", "-o")] = ExplainFormat.TABLE,
) -> None:
    """Say why a deployment has its size, or a route its target: the last decision, its numbers, and those before it.

    Of a deployment also its pods, and the newest Events. Everything is only read. Exits 1 if it does not exist or the
    cluster cannot be read, 2 for an option that is wrong.

      modelyard explain llmdep llama-3-1-8b -n team

      modelyard explain llmroute team/chat
    """
    wanted, namespace, name = read_target(kind, name, namespace)
    resource = KINDS.get(wanted)
    if resource is None:
        raise typer.BadParameter(
            f"{wanted!r} cannot be explained: give llmdep or llmroute", param_hint="kind"
        )
    report = run_command(_explain(resource, namespace, name, kubeconfig, context))
    if report is None:
        raise typer.Exit(UNREADABLE)
    typer.echo(_format(report, output))


async def _explain(
    resource: Resource, namespace: str | None, name: str, kubeconfig: Path | None, context: str | None
) -> ExplainReport | RouteReport | None:
    """Return what the object says, and of a deployment what its pods and Events say.

    None, with a line on standard error, where there is no such object, or one that cannot be read.
    """
    async with connect_cluster(kubeconfig, context) as (client, usual):
        namespace = namespace or usual
        body = await client.get(resource, namespace, name)
        if body is None:
            hint = await _suggest(client, resource, f"{namespace}/{name}")
            typer.echo(f"Error: no {resource.kind} {name} in namespace {namespace}{hint}", err=True)
            return None
        try:
            report = _build(resource, body)
        except InputError as error:
            typer.echo(f"Error: {namespace}/{name} cannot be read: {error}", err=True)
            return None
        return await _add_pods(client, report, body) if isinstance(report, ExplainReport) else report


async def _suggest(client: KubeClient, resource: Resource, key: str) -> str:
    """Return names that are near, or what else to try."""
    try:
        found = [body["metadata"] async for body in client.list_pages(resource, {})]
    except ApiError:
        # Whoever may not list them gets no names.
        found = []
    keys = sorted(f"{metadata['namespace']}/{metadata['name']}" for metadata in found)
    return suggest_names(key, keys) or ": name another namespace with -n"


async def _add_pods(client: KubeClient, report: ExplainReport, body: dict[str, Any]) -> ExplainReport:
    """Return the report with pods and Events, as far as they may be read."""
    namespace, notes = report.namespace, []
    pods: list[dict[str, Any]] | None = None
    events = None
    try:
        pods = await list_pods(client, namespace, report.name)
    except ApiError as error:
        notes.append(f"pods cannot be read: {error.message}")
    uids = [item["metadata"]["uid"] for item in (body, *(pods or ()))]
    try:
        events = await read_event_rows(client, namespace, uids)
    except ApiError as error:
        notes.append(f"Events cannot be read: {error.message}")
    return report.model_copy(
        update={
            "pods": None if pods is None else tuple(describe_pod(pod) for pod in pods),
            "events": None if events is None else tuple(events[-EVENTS_SHOWN:]),
            "notes": tuple(notes),
        }
    )


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


def find_numbers(body: Mapping[str, Any]) -> dict[str, str]:
    """Return `status.scaling.numbers`: the figures of the last decision, by name."""
    found = ((body.get("status") or {}).get("scaling") or {}).get("numbers") or {}
    return {str(name): str(value) for name, value in sorted(found.items())}


def _format(report: ExplainReport | RouteReport, output: ExplainFormat) -> str:
    if output is ExplainFormat.JSON:
        return to_json(wire(report))
    if output is ExplainFormat.YAML:
        return to_yaml(wire(report)).rstrip("\n")
    return format_route(report) if isinstance(report, RouteReport) else format_explanation(report)
