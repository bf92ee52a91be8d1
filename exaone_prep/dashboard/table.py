"""Searching, sorting and paging of Arrow tables on the server: a page is taken, never the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self
from urllib.parse import urlencode

import pyarrow as pa
import pyarrow.compute as pc

PAGE_ROWS: Final = 50
_LONGEST_SEARCH: Final = 100


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What can be asked of a table.

    Attributes:
        columns: That it can be sorted by, with their headings.
        search: Columns that a search looks into.
        filters: Columns that can be filtered by one of their values.
        sort: At first.
    """

    columns: Mapping[str, str]
    search: Sequence[str] = ()
    filters: Sequence[str] = ()
    sort: str = ""


@dataclass(frozen=True, kw_only=True)
class Query:
    """What a person asked for; whatever makes no sense is passed over.

    Attributes:
        text: To be found in one of the searched columns, whatever the case.
        sort: Column.
        down: From the largest.
        page: From 1.
        filters: Value by column.
    """

    text: str = ""
    sort: str = ""
    down: bool = False
    page: int = 1
    filters: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, asked: Mapping[str, str], shown: Shown) -> Self:
        """From the parameters of an address."""
        page = asked.get("page", "")
        return cls(
            text=asked.get("q", "")[:_LONGEST_SEARCH].strip(),
            sort=asked["sort"] if asked.get("sort") in shown.columns else shown.sort,
            down=asked.get("down") == "1",
            page=int(page) if page.isascii() and page.isdigit() and 0 < len(page) < 9 and int(page) else 1,
            filters=tuple((name, asked[name]) for name in shown.filters if asked.get(name)),
        )

    def address(self, **changes: Any) -> str:
        """The parameters of an address that asks for this with changes, from the first page unless one is given."""
        other = replace(self, **{"page": 1, **changes})
        words = {"q": other.text, **dict(other.filters), "sort": other.sort, "down": "1" if other.down else ""}
        words["page"] = str(other.page) if other.page > 1 else ""
        return "?" + urlencode({name: word for name, word in words.items() if word})

    def chosen(self, column: str) -> str:
        """The value that a column is filtered by; empty if it is not."""
        return dict(self.filters).get(column, "")


@dataclass(frozen=True, kw_only=True)
class Page:
    """Some rows of a table.

    Attributes:
        rows: Plain values.
        found: Rows that match, on all pages.
        first: Number of the first row that is shown, from 1.
        page: From 1, at most `pages`.
    """

    rows: list[dict[str, Any]]
    found: int
    first: int
    page: int
    pages: int


def page_of(table: pa.Table, query: Query, shown: Shown, *, rows: int = PAGE_ROWS) -> Page:
    """The rows of a page; nulls sort last, equal values keep the order of the table.

    Args:
        table: With the columns that `shown` names.
        query: What is asked for.
        shown: What can be.
        rows: On a page at most.
    """
    found = matching(table, query, shown)
    pages = max(1, -(-found.num_rows // rows))
    page = min(query.page, pages)
    first = (page - 1) * rows
    if query.sort:
        order = "descending" if query.down else "ascending"
        places = pc.sort_indices(found.select([query.sort]), sort_keys=[(query.sort, order)])
        some = found.take(places.slice(first, rows))
    else:
        some = found.slice(first, rows)
    return Page(
        rows=some.to_pylist(), found=found.num_rows, first=min(first + 1, found.num_rows), page=page, pages=pages
    )


def matching(table: pa.Table, query: Query, shown: Shown) -> pa.Table:
    """The rows that a query's search and filters leave, in their order."""
    mask = None
    for column, value in query.filters:
        here = pc.equal(pc.cast(table.column(column), pa.string()), value)
        mask = here if mask is None else pc.and_(mask, here)
    if query.text:
        hits = [
            pc.fill_null(pc.match_substring(table.column(name), query.text, ignore_case=True), False)
            for name in shown.search
        ]
        here = hits[0]
        for other in hits[1:]:
            here = pc.or_(here, other)
        mask = here if mask is None else pc.and_(mask, here)
    return table if mask is None else table.filter(mask)
