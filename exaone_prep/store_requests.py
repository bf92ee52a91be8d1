"""How many requests a build sends to an object store: stores take money for each, and few for each second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from exaone_prep.catalog.place import CHUNK_BYTES
from exaone_prep.catalog.stamp import BLOCKS
from exaone_prep.control import LOOK_EVERY_S
from exaone_prep.object_storage import READ_BACK_BYTES
from exaone_prep.progress import STORE_HEARTBEAT_S
from exaone_prep.s3_upload import requests_of

_BESIDE_SHARDS: Final = 4
"""Index, survey, pictures, ledger."""
_STAMP: Final = 4 + BLOCKS
"""Of a remote slide, for the catalog: its size, head, end, directory, and samples of its content."""
_CARD: Final = 30
"""Samples and pictures on the data set's card, and single files."""
_LISTED: Final = 1000


@dataclass(frozen=True, kw_only=True)
class StoreRequests:
    """Counts by the price that stores ask.

    Attributes:
        put: What stores something: PUT, POST, parts of an upload.
        get: What reads something: GET, HEAD.
        list: What lists names; stores ask the price of a PUT.
    """

    put: int = 0
    get: int = 0
    list: int = 0

    def __add__(self, other: StoreRequests) -> StoreRequests:
        return StoreRequests(put=self.put + other.put, get=self.get + other.get, list=self.list + other.list)

    def __mul__(self, times: int) -> StoreRequests:
        return StoreRequests(put=self.put * times, get=self.get * times, list=self.list * times)


def group_requests(*, shards: int, shard_bytes: int, staged: Sequence[float], seconds: float) -> StoreRequests:
    """Of one group, where the data set lies in a store.

    Args:
        shards: Of the group.
        shard_bytes: Of each.
        staged: Sizes of its slides that lie in a store, in bytes.
        seconds: That it takes.
    """
    return StoreRequests(
        put=shards * requests_of(shard_bytes) + _BESIDE_SHARDS + _ceil(seconds / STORE_HEARTBEAT_S),
        get=shards * (1 + _ceil(shard_bytes / READ_BACK_BYTES))
        + sum(1 + _ceil(size / CHUNK_BYTES) for size in staged)
        + 1  # whether it is paused
        + _ceil(seconds / LOOK_EVERY_S),
    )


def frame_requests(*, groups: int, remote_slides: int) -> StoreRequests:
    """Of what is done once: catalog, looking up what is missing, publishing."""
    return StoreRequests(
        put=10,
        get=_CARD + 3 * groups + _STAMP * remote_slides,  # the ledger twice and the survey once, to publish
        list=10 + 2 * _ceil(groups / _LISTED) + _ceil(remote_slides / _LISTED),
    )


def _ceil(number: float) -> int:
    return int(-(-number // 1))
