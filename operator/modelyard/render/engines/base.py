"""What an engine must tell the builders."""

from collections.abc import Collection, Mapping
from typing import Protocol

from modelyard.api.engines import ENGINE_PARAMETERS
from modelyard.api.llmdeployment import Engine
from modelyard.api.meta import Refusal
from modelyard.render.workload import Workload


class EngineAdapter(Protocol):
    """One engine: how it is started, watched and stopped."""

    @property
    def port(self) -> int:
        """The TCP port of the OpenAI API, the health check and the metrics."""
        ...

    @property
    def health_path(self) -> str:
        """A path that answers 200 when, and only when, the model is loaded."""
        ...

    @property
    def metrics_path(self) -> str:
        """The path of the Prometheus metrics."""
        ...

    @property
    def drains_on_sigterm(self) -> bool:
        """True if the engine finishes running requests after SIGTERM; else the pod must wait before it."""
        ...

    def check(self, workload: Workload) -> Refusal | None:
        """Return why the engine cannot run this workload, None if it can."""
        ...

    def build_arguments(self, workload: Workload) -> tuple[str, ...]:
        """Return the arguments after the image's entrypoint. They reach the process as they are, through no shell."""
        ...

    @property
    def address_variable(self) -> str | None:
        """The variable for the address under which a group's other pods reach the engine; None: it has no groups."""
        ...

    def build_group_arguments(self, workload: Workload, *, leads: bool) -> tuple[str, ...]:
        """Return what tells the engine its place in a group. The kubelet replaces variables in it, as `$(NAME)`.

        Raises ValueError for an engine that has no groups.
        """
        ...

    def build_environment(self) -> Mapping[str, str]:
        """Return environment variables beside the common ones."""
        ...


def check_parameters(
    engine: Engine, *, switches: Collection[str] = (), integers: Collection[str] = ()
) -> Refusal | None:
    """Check the names and the form of user parameters.

    `switches` take no value (an empty one, `true` or `false`), `integers` a whole number of at least 1, and all
    others any value but an empty one. The schema checks the names too; this holds for objects that an older
    schema let in.
    """
    for name, value in sorted(engine.parameters.items()):
        if name not in ENGINE_PARAMETERS[engine.name]:
            return Refusal(
                "InvalidParameter", f"engine.parameters.{name} is no parameter of {engine.name}: remove it"
            )
        if name in switches:
            if value not in ("", "true", "false"):
                return _invalid(name, value, "leave it empty, or write true or false")
        elif value == "":
            return _invalid(name, value, "give it a value")
        elif name in integers and not (value.isascii() and value.isdecimal() and int(value) >= 1):
            return _invalid(name, value, "write a whole number of at least 1")
    return None


def _invalid(name: str, value: str, remedy: str) -> Refusal:
    return Refusal("InvalidParameter", f"engine.parameters.{name} is {value!r}: {remedy}")
