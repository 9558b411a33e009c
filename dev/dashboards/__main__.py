"""Write the dashboards, or with `--check` say which of them are not as they would be written."""

import argparse
import json
from pathlib import Path

from dev.dashboards.cost import COST
from dev.dashboards.fleet import FLEET
from dev.dashboards.gateway import GATEWAY
from dev.dashboards.model import ONE_MODEL
from dev.dashboards.operator import OPERATOR
from dev.dashboards.panels import build

FOLDER = Path(__file__).resolve().parents[2] / "charts" / "modelyard" / "dashboards"
DASHBOARDS = (FLEET, COST, ONE_MODEL, GATEWAY, OPERATOR)


def files() -> dict[Path, str]:
    """Return what each file holds."""
    return {
        FOLDER / f"{item.name}.json": json.dumps(build(item), indent=2, sort_keys=True) + "\n"
        for item in DASHBOARDS
    }


def main() -> int:
    """Return the process's exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    differ = [
        path
        for path, text in files().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    if not check:
        FOLDER.mkdir(parents=True, exist_ok=True)
        for path, text in files().items():
            path.write_text(text, encoding="utf-8")
        return 0
    for path in differ:
        print(f"{path} is not up to date: run `python -m dev.dashboards`")
    return 1 if differ else 0


if __name__ == "__main__":
    raise SystemExit(main())
