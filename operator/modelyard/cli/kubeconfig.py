"""Which cluster is meant where no option names one."""

import os
from pathlib import Path


def find_kubeconfig() -> Path | None:
    """Return the kubeconfig that kubectl would use; None if there is none, as inside a cluster."""
    stated = [Path(part) for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    usual = Path("~/.kube/config").expanduser()
    return next((path for path in (*stated, usual) if path.is_file()), None)
