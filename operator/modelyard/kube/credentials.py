"""How the API server is reached: by a kubeconfig, or from the pod that this process runs in."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import yaml
from kubernetes.aio import client as api
from kubernetes.aio import config
from kubernetes.aio.config.kube_config import KubeConfigLoader

from modelyard.kube.errors import ApiError


async def load_configuration(
    kubeconfig: Path | Sequence[Path] | None = None, context: str | None = None
) -> api.Configuration:
    """Return how to reach the cluster of a kubeconfig, or with None or no file the one around this process.

    Of several files that describe the same thing the first is right. `context`: None is the current one. No file is
    written. Raises ApiError for what is no kubeconfig, has no such context, or names files that are not there.
    """
    configuration = api.Configuration()
    files = (kubeconfig,) if isinstance(kubeconfig, Path) else tuple(kubeconfig or ())
    if files:
        names = os.pathsep.join(map(str, files))
        try:
            loader = await config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=names, context=context, client_configuration=configuration, persist_config=False
            )
        except (
            *(config.ConfigException, yaml.YAMLError),
            *(OSError, ValueError, TypeError, KeyError, AttributeError),
        ) as error:
            # One line: YAML's own messages have several.
            told = " ".join(str(error).split())
            raise ApiError(0, "Kubeconfig", f"{names} is not a kubeconfig: {told}") from error
        _keep_token(configuration, loader)
    else:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    configuration.retries = False
    return configuration


def _keep_token(configuration: api.Configuration, loader: KubeConfigLoader) -> None:
    """Ask the program that the kubeconfig names for another token, where the one that it gave has an end.

    The client library asks it once: what runs for longer, such as `status --watch`, would be refused from then on (a
    token for EKS lasts a quarter of an hour).
    """
    if not hasattr(loader, "exec_plugin_expiry"):
        return
    lock = asyncio.Lock()

    async def renew(_: api.Configuration) -> None:
        async with lock:
            # It asks only five minutes before the end and later; where that fails, the token stays, and a log says so.
            await loader.load_from_exec_plugin()  # type: ignore[no-untyped-call]
            configuration.api_key["BearerToken"] = loader.token

    # The library declares it as None, and calls it before each request.
    configuration.refresh_api_key_hook = renew  # type: ignore[assignment]
