"""What flows have in common: they run with a server or not at all, and know no folder to start relative paths from.

Without the address of a server Prefect would start one of its own in every process.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from prefect import Flow
from prefect.settings import get_current_settings

from exaone_prep.catalog.place import is_url
from exaone_prep.errors import ManifestError, PrepError

P = ParamSpec("P")
R = TypeVar("R")


class NoServerError(PrepError):
    """There is no Prefect server to show a flow to."""


class ServedFlow(Flow[P, R]):
    """A flow that refuses to be called without the address of a server."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the flow here.

        Raises:
            NoServerError: PREFECT_API_URL is not set.
        """
        if not get_current_settings().api.url:
            raise NoServerError(
                f"The flow {self.name} needs a Prefect server: set PREFECT_API_URL to its address, "
                "such as http://127.0.0.1:4200/api; without a server use exaone-prep."
            )
        return super().__call__(*args, **kwargs)


def served_flow(name: str) -> Callable[[Callable[P, R]], ServedFlow[P, R]]:
    """Make a function a flow that needs a server and that nobody but the driver of a build retries."""
    return lambda function: ServedFlow(function, name=name, retries=0, log_prints=False)


def absolute(place: str, parameter: str) -> str:
    """A path or URL that means the same on every machine.

    Args:
        place: As it was given.
        parameter: Its name, for the message.

    Raises:
        ManifestError: It is a relative path, which a flow would look up wherever its worker was started.
    """
    if is_url(place) or Path(place.removeprefix("file://")).is_absolute():
        return place
    raise ManifestError(
        f"{parameter}: {place} is relative, and was looked for on the host {socket.gethostname()} in {os.getcwd()}: "  # noqa: PTH109
        "give an absolute path or a URL."
    )
