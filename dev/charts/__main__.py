"""`python -m dev.charts`: write what is generated in charts/, deploy/ and docs/, or say with `--check` what is old."""

import sys
from pathlib import Path

from dev.charts.generated import files
from dev.charts.helm import ROOT
from dev.charts.kustomize import DEPLOY
from dev.charts.rendered import rendered_files


def main(arguments: list[str]) -> int:
    """Write the files, or compare. Returns the exit status."""
    check = arguments == ["--check"]
    if arguments and not check:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    # What Helm renders follows from the others.
    old = [*_update(files(), check=check)]
    rendered = rendered_files()
    old += _update(rendered, check=check)
    for path in sorted(set(DEPLOY.rglob("*.yaml")) - rendered.keys()):
        old.append(path)
        if not check:
            path.unlink()
        sys.stdout.write(f"not wanted any more: {path.relative_to(ROOT)}\n")
    return int(check and bool(old))


def _update(wanted: dict[Path, str], *, check: bool) -> list[Path]:
    """Write the files that differ, unless they are only to be named. Returns them."""
    old = [
        path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    for path in old:
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path], encoding="utf-8")
        sys.stdout.write(f"{'out of date' if check else 'written'}: {path.relative_to(ROOT)}\n")
    return old


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
