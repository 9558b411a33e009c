"""A folder with a Secret's content, replaced at once as a kubelet replaces it in a pod's volume."""

import itertools
import shutil
from collections.abc import Mapping
from pathlib import Path


class MountedSecret:
    """Files are links into `..data`, which is a link to the present version; a change moves that link alone.

    https://kubernetes.io/docs/concepts/configuration/configmap/#mounted-configmaps-are-updated-automatically
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._versions = itertools.count(1)

    def write(self, data: Mapping[str, bytes]) -> None:
        """Put this content in the place of what is there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        current = self.folder / "..data"
        old = current.resolve() if current.exists() else None
        version = self.folder / f"..version-{next(self._versions)}"
        version.mkdir()
        for name, content in data.items():
            (version / name).write_bytes(content)
        link = self.folder / "..data_tmp"
        link.symlink_to(version.name)
        link.rename(current)
        for name in data:
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        if old is not None:
            shutil.rmtree(old)
