"""From a rendered container to the process that stands in for it.

`IMAGES` is the table: an image prefix and how its containers run here. Arguments stay as rendered;
only the listen address changes, because a process shares the machine's network where a container
has its own.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dev.nodes.environment import ContainerConfigError


class UnknownImageError(Exception):
    """No entry of the table matches the image; the kubelet's ErrImagePull."""


class ContainerStartError(Exception):
    """The image has no such program; the kubelet's StartError."""


@dataclass(frozen=True, slots=True)
class Image:
    """How containers of one image run here.

    `entrypoints` are the commands that start the image's server, the image's own entrypoint first;
    `module` is the Python module that takes the server's arguments; `name_options` are the options
    whose first value is the model's served name, the preferred one first.
    """

    prefix: str
    module: str
    entrypoints: tuple[tuple[str, ...], ...]
    name_options: tuple[str, ...]

    def matches(self, image: str) -> bool:
        """Whether `image` is this one, at any tag or digest and on any registry mirror."""
        path, _, _ = image.partition("@")
        repository = path if ":" not in path.rsplit("/", 1)[-1] else path.rsplit(":", 1)[0]
        tag = path.removeprefix(repository).removeprefix(":")
        wanted, _, wanted_tag = self.prefix.partition(":")
        return (repository == wanted or repository.endswith("/" + wanted)) and tag.startswith(wanted_tag)

    def arguments(self, command: Sequence[str], args: Sequence[str]) -> list[str]:
        """Return the server's arguments given a container's `command` and `args`.

        Raises ContainerStartError if the command is not the image's server.
        """
        if not command:
            return list(args)
        full = [*command, *args]
        for entrypoint in self.entrypoints:
            if tuple(full[: len(entrypoint)]) == entrypoint:
                return full[len(entrypoint) :]
        raise ContainerStartError(
            f"exec: {full[0]!r}: local nodes run {self.prefix} only by {self.entrypoints[0]}"
        )


IMAGES: tuple[Image, ...] = (
    Image(
        prefix="vllm/vllm-openai",
        module="dev.standin",
        # https://github.com/vllm-project/vllm/blob/main/docker/Dockerfile, stage vllm-openai
        entrypoints=(
            ("vllm", "serve"),
            ("python3", "-m", "vllm.entrypoints.openai.api_server"),
            ("python", "-m", "vllm.entrypoints.openai.api_server"),
        ),
        name_options=("--served-model-name", "--model"),
    ),
    Image(
        prefix="ggml-org/llama.cpp:server",
        module="dev.nodes.llamacpp",
        # https://github.com/ggml-org/llama.cpp/blob/master/.devops/cpu.Dockerfile, stage server
        entrypoints=(("/app/llama-server",), ("llama-server",)),
        name_options=("--alias", "-a", "--model", "-m"),
    ),
)
"""Every image that runs on local nodes."""


def find_image(name: str, images: Iterable[Image] = IMAGES) -> Image:
    """Return the table's entry for an image name. Raises UnknownImageError."""
    for image in images:
        if image.matches(name):
            return image
    raise UnknownImageError(f"failed to pull image {name!r}: local nodes have no program for it")


def server_command(image: Image, arguments: Sequence[str], address: str) -> list[str]:
    """Return the command line of the process that listens on `address`."""
    return [sys.executable, "-m", image.module, *_with_host(arguments, address)]


def _with_host(arguments: Sequence[str], address: str) -> list[str]:
    """Set the `--host` option; the last one wins in both servers, so others need not be removed."""
    kept: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--host":
            next(rest, None)
        elif not argument.startswith("--host="):
            kept.append(argument)
    return [*kept, "--host", address]


def served_name(image: Image, arguments: Sequence[str]) -> str | None:
    """Return the model name that the server will answer to, or None if the arguments give none."""
    for option in image.name_options:
        for index, argument in enumerate(arguments):
            if argument.startswith(option + "="):
                return argument.partition("=")[2]
            if argument == option and index + 1 < len(arguments):
                return arguments[index + 1]
    return None


@dataclass(frozen=True, slots=True)
class EnvironmentRule:
    """Extra variables for some containers' processes, from whoever runs the agent.

    `selects` is `class`, `model`, `image` or `all`: which of the node's class, the served model name and
    the image's name must equal `value` (for the image, start with it). Later rules override earlier ones.
    """

    selects: str
    value: str
    variables: Mapping[str, str]

    def applies(self, *, node_class: str, model: str | None, image: str) -> bool:
        """Whether a container with these properties gets the variables."""
        tests: dict[str, Callable[[], bool]] = {
            "all": lambda: True,
            "class": lambda: node_class == self.value,
            "model": lambda: model == self.value,
            "image": lambda: image.startswith(self.value),
        }
        return tests[self.selects]()


_RULE = re.compile(r"(?:(class|model|image)=(.+?):)?([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)


def parse_environment_rule(text: str) -> EnvironmentRule:
    """Read `[class=CLASS:|model=NAME:|image=PREFIX:]VARIABLE=VALUE`. Raises ValueError."""
    match = _RULE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not [class=CLASS:|model=NAME:|image=PREFIX:]VARIABLE=VALUE")
    selects, value, name, content = match.groups()
    return EnvironmentRule(selects or "all", value or "", {name: content})


def mount_rewriter(container: Mapping[str, Any], folders: Mapping[str, str]) -> Callable[[str], str]:
    """Return a function that rewrites paths under the container's mounts to this machine's.

    `folders` gives the folder of each volume. A process has no file system of its own, so a path is
    changed where it is named: as a whole value, as its beginning, or after an `=`.
    Raises ContainerConfigError for a mount of a volume without a folder.
    """
    mounts: dict[str, str] = {}
    for mount in container.get("volumeMounts", []):
        if mount["name"] not in folders:
            raise ContainerConfigError(f"local nodes mount emptyDir volumes only, not {mount['name']!r}")
        folder = folders[mount["name"]]
        mounts[mount["mountPath"].rstrip("/")] = folder + (
            "/" + mount["subPath"] if "subPath" in mount else ""
        )

    def rewrite(value: str) -> str:
        option, equals, path = value.rpartition("=") if value.startswith("-") else ("", "", value)
        for mount_path in sorted(mounts, key=len, reverse=True):
            if path == mount_path or path.startswith(mount_path + "/"):
                return option + equals + mounts[mount_path] + path[len(mount_path) :]
        return value

    return rewrite
