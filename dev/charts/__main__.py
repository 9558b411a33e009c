"""`python -m dev.charts`: write what is generated in charts/, or with `--check` say what is out of date."""

import sys

from dev.charts.generated import ROOT, files


def main(arguments: list[str]) -> int:
    """Write the files, or compare. Returns the exit status."""
    check = arguments == ["--check"]
    if arguments and not check:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    old = [path for path, text in files().items() if not path.exists() or path.read_text("utf-8") != text]
    for path in old:
        if not check:
            path.write_text(files()[path], encoding="utf-8")
        sys.stdout.write(f"{'out of date' if check else 'written'}: {path.relative_to(ROOT)}\n")
    return int(check and bool(old))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
