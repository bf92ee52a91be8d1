"""Names inside a data set directory (`docs/format.md` says what each file holds)."""

from __future__ import annotations

from typing import Final

FORMAT_VERSION: Final = 1
"""Readers accept this version and the one before; columns are only ever added."""

CATALOG: Final = "catalog.parquet"
MANIFEST: Final = "manifest.yaml"
BUILD: Final = "build.json"
OUTCOMES: Final = "outcomes.parquet"
STAIN: Final = "stain.parquet"
VERIFICATION: Final = "verification.json"
CARD: Final = "README.md"
CARD_PICTURE: Final = "README.jpg"
LEDGER: Final = "ledger"
ATTEMPTS: Final = "attempts"
PROGRESS: Final = "progress"
CONTROL: Final = "control"
PAUSE: Final = "control/pause.json"


def private(content_id: str) -> str:
    """Clear names and places of a data set with hashed ids; written before the catalog that it belongs to."""
    return f"private/slides-{content_id[:16]}.parquet"


def survey(group: int) -> str:
    """One row per slide."""
    return f"survey/group-{group:06d}.parquet"


def slides(group: int) -> str:
    """Pictures per slide."""
    return f"slides/group-{group:06d}.zarr.zip"


def index(split: str, group: int) -> str:
    """One row per sample."""
    return f"index/{split}/group-{group:06d}.parquet"


def shard(split: str, name: str) -> str:
    """A tar of samples."""
    return f"shards/{split}/{name}"


def shard_info(split: str) -> str:
    """What timm's WebDataset reader looks for."""
    return f"shards/{split}/_info.json"


def ledger(group: int) -> str:
    """The commit record of a group."""
    return f"{LEDGER}/group-{group:06d}.json"


def attempt(group: int, number: int) -> str:
    """A failed attempt."""
    return f"{ATTEMPTS}/group-{group:06d}-{number}.json"


def heartbeat(builder: str) -> str:
    """What a builder that runs shows of itself."""
    return f"{PROGRESS}/{builder}.json"


def stop(builder: str) -> str:
    """Is there when the groups of a builder are to end."""
    return f"{CONTROL}/stop-{builder}.json"


def group_of(name: str) -> int:
    """The group in a name such as `group-000012.json` or `group-000012-1.json`."""
    return int(name.removeprefix("group-")[:6])
