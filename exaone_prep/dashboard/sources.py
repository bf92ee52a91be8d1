"""All data sets of one dashboard, and what a page is about: one of them, or all as one."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from exaone_prep.dashboard.committed import SHARDS, Committed
from exaone_prep.dashboard.source import Source
from exaone_prep.dashboard.view import ALL, Scope, View


class Sources:
    """Data sets by their keys.

    Attributes:
        by_key: In the order they were given; a key is the last part of its address, so that pages keep theirs.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self.by_key: dict[str, Source] = {}
        for url in urls:
            name = re.sub(r"[^A-Za-z0-9_-]+", "-", url.rstrip("/").rpartition("/")[2]).strip("-") or "dataset"
            taken = {*self.by_key, ALL}
            key = next(key for key in (name, *(f"{name}-{n}" for n in range(2, len(urls) + 3))) if key not in taken)
            self.by_key[key] = Source(url, key)
        self._joined: tuple[tuple[Committed, ...], pa.Table, pa.Table] | None = None

    def load(self) -> None:
        """Read all that is there."""
        for source in self.by_key.values():
            source.load()

    def views(self) -> list[View]:
        """Of those that are there."""
        return [view for source in self.by_key.values() if (view := source.view()) is not None]

    def scope(self, key: str) -> Scope | None:
        """What a page is about; None where nothing is there by that name.

        Args:
            key: Of a data set, or `ALL`.
        """
        if key == ALL:
            views = self.views()
            return self._all(views) if views else None
        source = self.by_key.get(key)
        view = source.view() if source is not None else None
        if view is None:
            return None
        return Scope(key=key, views=(view,), slides=view.committed.slides, shards=view.committed.shards)

    def _all(self, views: Sequence[View]) -> Scope:
        parts = tuple(view.committed for view in views)
        # Equality would compare the tables.
        if self._joined is None or [*map(id, self._joined[0])] != [*map(id, parts)]:
            shards = pa.concat_tables([SHARDS.empty_table(), *(part.shards for part in parts)])
            self._joined = parts, mended([part.slides for part in parts]), shards
        return Scope(key=ALL, views=tuple(views), slides=self._joined[1], shards=self._joined[2])


def mended(tables: Sequence[pa.Table]) -> pa.Table:
    """Slides of several data sets as one: one that was set aside and is in a later one counts there alone.

    Args:
        tables: See `Committed.slides`; a data set that repairs another comes after it.
    """
    kept: list[pa.Table] = []
    for number, table in enumerate(tables):
        later = pa.array([slide for after in tables[number + 1 :] for slide in after.column("slide_id").to_pylist()])
        again = pc.is_in(table.column("slide_id"), value_set=later.cast(pa.string()))
        aside = pc.equal(table.column("outcome"), "quarantined")
        kept.append(table.filter(pc.invert(pc.and_(again, aside))))
    return pa.concat_tables(kept)
