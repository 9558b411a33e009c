"""Pictures of the dashboards for docs/images: `python -m dev.dashboards.screenshots`."""

import io
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

from dev.browser import BrowserInstallError, BrowserMissingError
from dev.cluster.binaries import BuildError
from dev.cluster.instance import InstanceBusyError
from dev.cluster.interrupts import terminable
from dev.cluster.processes import ComponentError
from dev.dashboards import scenario
from dev.dashboards.drawing import Drawer, DrawingError
from dev.dashboards.page import PageBuildError
from dev.dashboards.recording import SCRAPE_INTERVAL_S, Recording, record
from dev.demo.settings import REPOSITORY

CHOICES = {"model": {"namespace": scenario.NAMESPACE, "deployment": scenario.BUSY}}
"""Values of the variables of a dashboard; others have their first value, or all."""

COLORS = 256
"""As many as a palette of PNG holds."""

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells have it."""

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command()
def screenshots(
    again: Annotated[
        bool, typer.Option("--again", help="Draw the last recorded run again instead of a new one.")
    ] = False,
    folder: Annotated[Path, typer.Option(help="Folder for logs and data of the run.")] = REPOSITORY
    / "run"
    / "dashboards",
    output: Annotated[Path, typer.Option(help="Folder for the pictures.")] = REPOSITORY / "docs" / "images",
) -> None:
    """Run models under recorded traffic for about ten minutes, and draw the dashboards from what Prometheus scraped.

    A local cluster, the operator, Envoy, stand-ins for engines and a stand-in for a provider are started and stopped;
    Ctrl-C stops them at any time. The dashboards are drawn in headless Chromium with the components that Grafana
    publishes for plugins; Grafana itself is not part of it.
    """
    try:
        with terminable():
            recording = Recording.read(folder / "prometheus") if again else record(folder, _say)
            _draw(recording, output)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except FileNotFoundError as error:
        sys.exit(f"there is no recorded run: {error}")
    except (
        *(BuildError, ComponentError, InstanceBusyError, TimeoutError),
        *(BrowserMissingError, BrowserInstallError, DrawingError, PageBuildError),
    ) as error:
        sys.exit(str(error))


def _draw(recording: Recording, output: Path) -> None:
    prometheus = recording.open()
    try:
        prometheus.process.start()
        prometheus.process.wait_ready()
        with Drawer(prometheus.url, scrape_interval=SCRAPE_INTERVAL_S, report=_say) as drawer:
            output.mkdir(parents=True, exist_ok=True)
            for name in ("fleet", "cost", "model", "gateway", "operator"):
                drawn = drawer.draw(name, recording.begin, recording.end, CHOICES.get(name, {}))
                picture = _shrink(drawn.picture)
                (output / f"dashboard-{name}.png").write_bytes(picture)
                _say(f"{name}: {len(drawn.panels)} panels, {len(picture) / 1000:.0f} kB")
                for line in (*drawn.problems(), *drawn.messages):
                    _say(f"  {line}")
    finally:
        prometheus.process.stop()


def _shrink(picture: bytes) -> bytes:
    """Return a PNG with a palette: charts have few colours, and it takes half of the space."""
    smaller = io.BytesIO()
    with Image.open(io.BytesIO(picture)) as image:
        image.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE).save(smaller, "PNG", optimize=True)
    return smaller.getvalue()


def _say(line: str) -> None:
    typer.echo(line)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    app()
