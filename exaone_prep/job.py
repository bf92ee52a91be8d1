"""What a worker process can be asked to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

Tell = Callable[[int], None]
"""Called by a job with the number of patches it has gone through."""


class Job(Protocol):
    """Something a worker can do: picklable, and small."""

    def run(self, tell: Tell) -> Any:
        """Do it; the answer travels back, so it is small as well."""
