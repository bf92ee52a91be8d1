"""What a worker of a cluster is told, and what it answers: small records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from exaone_prep.build import Failure
from exaone_prep.stain import Device


@dataclass(frozen=True, kw_only=True)
class Order:
    """Build one group.

    Attributes:
        group: Its number.
        url: Of the data set, which the worker opens itself.
        content_id: Of the catalog it must find there.
        builder: The driver, by the name of its stop key (`exaone_prep.control`).
        workers: Processes that decode.
        device: What normalises, as far as that is free.
        folder: Local working space; None: see `exaone_prep.site.default_scratch`.
        limit_bytes: Of what all builders there may need together.
    """

    group: int
    url: str
    content_id: str
    builder: str
    workers: int
    device: Device
    folder: Path | None
    limit_bytes: int | None


@dataclass(frozen=True)
class Refused:
    """The worker cannot build this data set, whatever the group: other versions, no such directory, no GPU."""

    sentence: str


Answer = Failure | Refused | None
"""None: the group is committed."""
