"""The demo from beginning to end."""

import asyncio
import os
from contextlib import AbstractAsyncContextManager, ExitStack, suppress
from pathlib import Path

from rich.console import Console

from dev.cluster.processes import Component
from dev.demo.chat import curl_line
from dev.demo.cluster import NODE_COUNT, apply_examples, install_kinds, start_control_plane
from dev.demo.kube import Cluster, NotReadyError, wait_until
from dev.demo.observer import Observer
from dev.demo.programs import envoy, local_nodes, operator
from dev.demo.report import print_result, write_report
from dev.demo.result import DemoResult, find_problems
from dev.demo.settings import (
    CHAT_MODEL,
    CHAT_PROMPT,
    DEMO_NAMESPACE,
    NODES,
    STEADY_TIMEOUT_S,
    TRAFFIC_MODEL,
    DemoSettings,
)
from dev.demo.steps import Steps
from dev.demo.table import show
from dev.demo.traffic import CHAT_BODY, chat_with_sleeper, plan_traffic, wait_for_models
from dev.loadgen import LoadGenerator, RequestRecord, summarise
from dev.loadgen.schedule import peak_rate
from dev.stack import Ports

MINIMUM_REPLICAS = 1
"""`scaling.min` of examples/llama-3.1-8b.yaml."""

NODES_TIMEOUT_S = 60.0
"""Time for the local nodes to register and become Ready."""


class Demo:
    """One run: `play` starts everything, sends the traffic and stops everything."""

    def __init__(self, settings: DemoSettings, console: Console) -> None:
        self._settings = settings
        self._console = console
        self._steps = Steps(console)
        self._ports = Ports.choose()
        self._running: list[Component] = []

    def play(self) -> bool:
        """Run the demo and tell whether all went as promised.

        Raises NotReadyError, and the errors of `dev.cluster`, if something does not start. Whatever happens,
        Ctrl-C included, all that was started is stopped before this returns.
        """
        settings, steps = self._settings, self._steps
        with ExitStack() as stack:
            # The stack unwinds in reverse: this is the last thing said.
            stack.callback(self._console.print, "Stopped all that was started.", style="dim")
            kubeconfig = settings.kubeconfig or start_control_plane(settings, steps, stack)
            cluster = stack.enter_context(Cluster(kubeconfig))
            with steps.step("Install the kinds LLMDeployment, LLMRoute and AcceleratorClass"):
                install_kinds(cluster, stack, tidy=not settings.local)
            if settings.local:
                self._start_nodes(cluster, kubeconfig, stack)
            self._start("Start the operator", operator(settings, kubeconfig, self._ports), stack)
            self._start("Start Envoy", envoy(settings, self._ports), stack)
            with steps.step("Apply examples/"):
                apply_examples(cluster, stack, tidy=not settings.local)
            good = asyncio.run(self._observe(cluster, kubeconfig))
            stack.callback(self._console.print, "Stopping ...", style="dim")
        return good

    def _start(self, name: str, component: Component, stack: ExitStack) -> None:
        with self._steps.step(name) as step:
            # Registered first: a stop in the middle of the start must end the program too.
            stack.callback(component.stop)
            component.start()
            component.wait_ready()
            step.note = f"log in {_short(component.log)}"
        self._running.append(component)

    def _start_nodes(self, cluster: Cluster, kubeconfig: Path, stack: ExitStack) -> None:
        agent = local_nodes(self._settings, kubeconfig)
        self._start(f"Start the local nodes' agent for {NODES}", agent, stack)
        with self._steps.step(f"Wait for {NODE_COUNT} nodes"):
            wait_until(
                lambda: cluster.ready_nodes() == NODE_COUNT or not agent.running,
                NODES_TIMEOUT_S,
                f"{NODE_COUNT} nodes are not Ready",
            )
            self._check_running()

    async def _observe(self, cluster: Cluster, kubeconfig: Path) -> bool:
        observer = Observer(cluster, DEMO_NAMESPACE, self._ports.stats_url)
        watching = asyncio.create_task(observer.run())
        try:
            result = await self._send_traffic(observer)
            problems = find_problems(result, TRAFFIC_MODEL)
            page = write_report(result)
            print_result(result, problems, page, self._console)
            if self._settings.keep:
                await self._keep(observer, kubeconfig)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        return not problems

    async def _send_traffic(self, observer: Observer) -> DemoResult:
        settings, steps, url = self._settings, self._steps, self._ports.url
        with steps.step("Wait until the gateway lists both models"):
            await wait_for_models(url, (CHAT_MODEL, TRAFFIC_MODEL), STEADY_TIMEOUT_S)
        with steps.step(f"Ask {CHAT_MODEL}, which sleeps: {CHAT_PROMPT!r}") as step:
            await observer.wait_for(CHAT_MODEL, ready=0, timeout_s=STEADY_TIMEOUT_S)
            chat, held = await chat_with_sleeper(url, observer)
            step.note = chat.error or f"{chat.text!r}"
        with steps.step(f"Wait for the first replica of {TRAFFIC_MODEL}"):
            await self._wait_steady(observer)
        began_s = observer.elapsed_s
        records = await self._play_trace(observer)
        with steps.step(f"Wait until {TRAFFIC_MODEL} is back at {MINIMUM_REPLICAS}") as step:
            returned = await self._wait_return(observer)
            step.note = "back" if returned else "not back in time"
        return DemoResult(
            settings=settings,
            chat=chat,
            chat_held=held,
            traffic=summarise(records),
            records=records,
            traffic_began_s=began_s,
            samples=tuple(observer.samples),
            returned=returned,
            steps=tuple(steps.finished),
        )

    async def _play_trace(self, observer: Observer) -> list[RequestRecord]:
        settings = self._settings
        planned = plan_traffic(settings)
        generator = LoadGenerator(self._ports.url, TRAFFIC_MODEL)

        def footer() -> str:
            progress = generator.progress
            return (
                f"{observer.elapsed_s:.0f} s: {progress.sent:,} of {len(planned):,} requests sent, "
                f"{progress.answered:,} answered, {progress.lost} lost, {progress.in_flight} under way"
            )

        with self._steps.step(f"Play {len(planned):,} requests to {TRAFFIC_MODEL}") as step:
            self._steps.say(settings.describe_time())
            self._steps.say(f"highest rate over 10 s: {peak_rate(planned):.1f} requests/s")
            async with show(observer, self._console, interactive=settings.interactive, footer=footer):
                records = await generator.run(planned)
            step.note = footer()
        self._check_running()
        return records

    async def _wait_steady(self, observer: Observer) -> None:
        timeout_s = self._settings.engine_start_s + STEADY_TIMEOUT_S
        if not await observer.wait_for(TRAFFIC_MODEL, ready=MINIMUM_REPLICAS, timeout_s=timeout_s):
            self._check_running()
            view = observer.latest.model(TRAFFIC_MODEL)
            raise NotReadyError(
                f"{TRAFFIC_MODEL} does not serve after {timeout_s:.0f} s: {view.message if view else 'no status'}"
            )

    async def _wait_return(self, observer: Observer) -> bool:
        timeout_s = self._settings.engine_start_s + STEADY_TIMEOUT_S
        async with self._show(observer):
            return await observer.wait_for(TRAFFIC_MODEL, ready=MINIMUM_REPLICAS, timeout_s=timeout_s)

    async def _keep(self, observer: Observer, kubeconfig: Path) -> None:
        """Say how to use what runs, and let it run until Ctrl-C: here that is the end, not an interruption."""
        flags = f"--kubeconfig {_short(kubeconfig)} -n {DEMO_NAMESPACE}"
        for title, line in (
            ("Send a request", curl_line(self._ports.url, CHAT_BODY)),
            ("See the models", f"kubectl {flags} get llmdeployments -o wide"),
            ("See every condition and its reason", f"kubectl {flags} describe llmdeployments"),
            ("Follow the operator", f"tail -f {_short(self._settings.folder / 'logs' / 'operator.log')}"),
        ):
            self._console.print(f"[bold]{title}:[/]")
            self._console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
        self._console.print("Running until Ctrl-C.")
        with suppress(asyncio.CancelledError):
            async with self._show(observer):
                await asyncio.Event().wait()

    def _show(self, observer: Observer) -> AbstractAsyncContextManager[None]:
        def footer() -> str:
            return f"{observer.elapsed_s:.0f} s"

        return show(observer, self._console, interactive=self._settings.interactive, footer=footer)

    def _check_running(self) -> None:
        """Raise NotReadyError with the end of the log if one of our programs has ended."""
        for component in self._running:
            if not component.running:
                raise NotReadyError(f"{component.name} has ended\n{component.tail()}")


def _short(path: Path) -> str:
    """Return the path as a person would type it here."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
