"""The web application: addresses, and which template shows what."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from numpy.typing import NDArray
from starlette.exceptions import HTTPException as AnyHTTPException

from exaone_prep import __version__, stain
from exaone_prep.dashboard import album, charts, quarantine, words
from exaone_prep.dashboard.album import Album, Picture
from exaone_prep.dashboard.figures import cohorts_of, figures_of, timeline
from exaone_prep.dashboard.guard import PICTURE_POLICY, Guard
from exaone_prep.dashboard.metrics import exposition
from exaone_prep.dashboard.shown import SET_ASIDE, SHARDS, SLIDES
from exaone_prep.dashboard.sources import Sources
from exaone_prep.dashboard.stains import fits_of, unfitted
from exaone_prep.dashboard.table import Query, matching, page_of
from exaone_prep.dashboard.view import ALL, Scope, View
from exaone_prep.errors import PrepError
from exaone_prep.ledger import GroupRecord
from exaone_prep.stain_picture import verdict_words
from exaone_prep.survey_table import fit_of

WORST: Final = 12
MIXED_GROUPS: Final = 3
"""Groups of a data set whose indexes are read to see how its shards are mixed."""
_CHARTS_KEPT: Final = 64
_KEEP: Final = {"Cache-Control": "private, max-age=600"}


def create_app(sources: Sources, *, token: str | None = None, host: str = "127.0.0.1") -> FastAPI:
    """The application.

    Args:
        sources: What it shows.
        token: That whoever looks must have; None: nobody is asked.
        host: Where it listens.
    """
    app = FastAPI(title="exaone-prep", docs_url=None, redoc_url=None, openapi_url=None)
    pages, one = _Pages(sources), "/d/{key}"
    app.add_middleware(Guard, token=token, host=host, refused=pages.refused)
    app.mount("/static", StaticFiles(packages=[("exaone_prep.dashboard", "static")]))
    for path, page in (
        ("/", pages.root),
        ("/metrics", pages.metrics),
        ("/healthz", pages.health),
        (f"{one}/", pages.overview),
        (f"{one}/slides", pages.slides),
        (f"{one}/slides/{{slide_id}}", pages.slide),
        (f"{one}/slides/{{slide_id}}/{{picture}}", pages.slide_picture),
        (f"{one}/quarantine", pages.quarantine),
        (f"{one}/quarantine.csv", pages.quarantine_csv),
        (f"{one}/stain", pages.stain),
        (f"{one}/shards", pages.shards),
        (f"{one}/shards/{{split}}/{{name}}", pages.shard),
        (f"{one}/shards/{{split}}/{{name}}/{{row}}", pages.sample),
        (f"{one}/attempts", pages.attempts),
        (f"{one}/chart/{{name}}.svg", pages.chart),
    ):
        app.add_api_route(path, page, methods=["GET", "HEAD"], response_class=Response)
    app.add_exception_handler(AnyHTTPException, pages.failed)
    app.add_exception_handler(PrepError, pages.unreadable)
    app.add_exception_handler(OSError, pages.unreadable)
    return app


class _Pages:
    """What each address answers."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._album = Album()
        self._charts: OrderedDict[tuple[object, ...], bytes] = OrderedDict()
        self._templates = Environment(
            loader=PackageLoader("exaone_prep.dashboard"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        names = ("count", "number", "size", "duration", "when", "percent")
        self._templates.filters.update({name: getattr(words, name) for name in names}, ticks=_ticks)
        self._templates.globals.update(version=__version__, all_key=ALL, keys=list(sources.by_key))
        for template in self._templates.list_templates():
            self._templates.get_template(template)  # the first page is as quick as the others

    def root(self) -> Response:
        keys = list(self._sources.by_key)
        return RedirectResponse(f"/d/{keys[0] if len(keys) == 1 else ALL}/")

    def health(self) -> Response:
        return Response("ok\n", media_type="text/plain")

    def metrics(self) -> Response:
        return Response(exposition(self._sources), media_type="text/plain; version=0.0.4; charset=utf-8")

    def overview(self, key: str) -> Response:
        scope, now = self._scope(key), time.time()
        return self._page(
            "overview.html",
            scope,
            figures=figures_of(scope.views, scope.slides, now),
            each=[(view, figures_of([view], view.committed.slides, now)) for view in scope.views],
            cohorts=cohorts_of(scope.slides),
            drawn=any(view.committed.records for view in scope.views),
            now=now,
        )

    def slides(self, key: str, request: Request) -> Response:
        scope, query = self._scope(key), Query.of(request.query_params, SLIDES)
        return self._page(
            "slides.html",
            scope,
            query=query,
            shown=SLIDES,
            page=page_of(scope.slides, query, SLIDES),
            choices={name: _choices(scope, name) for name in ("outcome", "cohort", "reason", "split")},
        )

    def slide(self, key: str, slide_id: str) -> Response:
        scope, view = self._one(key)
        slide = self._known(lambda: self._album.slide(view, slide_id))
        fit = fit_of(slide.row)
        names = {view.key: view.committed.number_of for view in self._sources.views() if view.key != key}
        return self._page(
            "slide.html",
            scope,
            view=view,
            slide=slide,
            row=slide.row,
            fit=fit,
            verdict=verdict_words(fit) if fit is not None else "",
            reference=view.dataset.reference,
            extra=view.dataset.catalog.rows[view.committed.number_of[slide_id]].extra,
            elsewhere=[other for other, known in names.items() if slide_id in known],
        )

    def slide_picture(self, key: str, slide_id: str, picture: str) -> Response:
        _, view = self._one(key)
        slide = self._known(lambda: self._album.slide(view, slide_id))
        kind, _, number = picture.partition(".")[0].partition("-")
        place = int(number) if number.isascii() and number.isdigit() and len(number) < 3 else 0
        found: Picture | None = None
        if kind == "cloud" and place < 2:
            found = album.cloud(slide, view, place)
        elif kind in ("before", "after"):
            found = album.patch_before(slide, place) if kind == "before" else album.patch_after(slide, view, place)
        elif kind in ("overview", "mask", "patches"):
            found = {"overview": album.overview, "mask": album.mask_over, "patches": album.patches_over}[kind](slide)
        if found is None:
            raise HTTPException(404)
        return Response(found[0], media_type=found[1], headers=_KEEP)

    def quarantine(self, key: str, request: Request) -> Response:
        scope, query = self._scope(key), Query.of(request.query_params, SET_ASIDE)
        some = quarantine.quarantined(scope.slides)
        return self._page(
            "quarantine.html",
            scope,
            query=query,
            shown=SET_ASIDE,
            reasons=quarantine.reasons(some),
            total=some.num_rows,
            page=page_of(some, query, SET_ASIDE),
            cohorts=sorted({*some.column("cohort").unique().to_pylist()}),
        )

    def quarantine_csv(self, key: str, request: Request) -> Response:
        scope, query = self._scope(key), Query.of(request.query_params, SET_ASIDE)
        text = quarantine.as_csv(matching(quarantine.quarantined(scope.slides), query, SET_ASIDE))
        name = f'attachment; filename="quarantine-{scope.key}.csv"'
        return Response(text, media_type="text/csv; charset=utf-8", headers={"Content-Disposition": name})

    def stain(self, key: str) -> Response:
        scope = self._scope(key)
        fits = fits_of(scope.slides)
        return self._page(
            "stain.html",
            scope,
            measured=fits.slides.num_rows,
            worst=fits.worst(WORST),
            unfitted=unfitted(scope.slides),
            sentences=stain.SENTENCES,
            cohorts=cohorts_of(scope.slides),
            statuses=list(_statuses(scope)),
        )

    def shards(self, key: str, request: Request) -> Response:
        scope, query = self._scope(key), Query.of(request.query_params, SHARDS)
        return self._page(
            "shards.html",
            scope,
            query=query,
            shown=SHARDS,
            page=page_of(scope.shards, query, SHARDS),
            splits=sorted(scope.shards.column("split").unique().to_pylist()),
            mixed=sum(len(_some(view)) for view in scope.views),
        )

    def shard(self, key: str, split: str, name: str, request: Request) -> Response:
        scope, view = self._one(key)
        table = self._known(lambda: self._album.shard(view, split, name))
        record = view.committed.shard_groups[split, name]
        entry = next(one for one in record.shards if one.name == name)
        asked = request.query_params.get("draw", "0")
        draw = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 7 else 0
        counts = table.group_by("slide_id").aggregate([("slide_id", "count")]).to_pylist()
        columns = table.select(["slide_id", "x", "y", "stain_status", "image_size"])
        rows = album.drawn(table.num_rows, draw)
        problems = (view.verified or {}).get("problems", ())
        return self._page(
            "shard.html",
            scope,
            view=view,
            split=split,
            entry=entry,
            record=record,
            draw=draw,
            samples=[(row, columns.slice(row, 1).to_pylist()[0]) for row in rows],
            counts=sorted(counts, key=lambda one: (-one["slide_id_count"], one["slide_id"])),
            expected=album.by_chance(entry.samples, _kept(view, record.group)),
            problems=[problem for problem in problems if name in problem],
        )

    def sample(self, key: str, split: str, name: str, row: int) -> Response:
        _, view = self._one(key)
        table = self._known(lambda: self._album.shard(view, split, name))
        if not 0 <= row < table.num_rows:
            raise HTTPException(404)
        image, kind = album.sample(view, split, table.slice(row, 1).to_pylist()[0])
        return Response(image, media_type=kind, headers=_KEEP)

    def attempts(self, key: str) -> Response:
        scope = self._scope(key)
        some = [(view, one) for view in scope.views for one in view.attempts]
        return self._page(
            "attempts.html",
            scope,
            attempts=sorted(some, key=lambda one: -float(one[1]["time"])),
            unread=sum(view.attempts_failed for view in scope.views) - len(some),
        )

    def chart(self, key: str, name: str, theme: str = "light") -> Response:
        scope = self._scope(key)
        if theme not in ("light", "dark"):
            raise HTTPException(404)
        stamp = (key, name, theme, *(len(view.committed.records) for view in scope.views))
        made = self._charts.get(stamp)
        if made is None:
            made = self._drawn(scope, name, "dark" if theme == "dark" else "light")
            self._charts[stamp] = made
            while len(self._charts) > _CHARTS_KEPT:
                self._charts.popitem(last=False)
        headers = {**_KEEP, "Content-Security-Policy": PICTURE_POLICY}
        return Response(made, media_type="image/svg+xml", headers=headers)

    def _drawn(self, scope: Scope, name: str, theme: charts.Theme) -> bytes:
        if name == "progress":
            line = timeline([record for view in scope.views for record in view.committed.records])
            if line is not None:
                return charts.progress_chart(line, theme)
        elif name in ("vectors", "spread"):
            fits = fits_of(scope.slides)
            if fits.slides.num_rows:
                return charts.vectors_chart(fits, theme) if name == "vectors" else charts.spread_chart(fits, theme)
        elif name in ("sizes", "mixing") and scope.shards.num_rows:
            if name == "sizes":
                return charts.sizes_chart(scope.shards.column("bytes").to_numpy(), theme)
            some = [(view, record) for view in scope.views for record in _some(view)]
            found = [count for view, record in some for count in self._album.slides_per_shard(view, record)]
            expected = [
                album.by_chance(shard.samples, kept)
                for view, record in some
                for kept in [_kept(view, record.group)]
                for shard in record.shards
            ]
            return charts.mixing_chart(found, expected, theme)
        raise HTTPException(404)

    def refused(self, request: Request) -> Response:
        return self._message(request, 401, "This dashboard asks for a token.", token=True)

    async def failed(self, request: Request, error: Exception) -> Response:
        code = error.status_code if isinstance(error, AnyHTTPException) else 500
        detail = {404: "There is no such page.", 405: "Nothing can be changed here."}.get(code, "")
        given = error.detail if isinstance(error, AnyHTTPException) and code == 503 else detail
        return self._message(request, code, given or "This does not work.")

    async def unreadable(self, request: Request, error: Exception) -> Response:
        return self._message(request, 502, f"The data set cannot be read: {error}")

    def _message(self, request: Request, code: int, sentence: str, *, token: bool = False) -> Response:
        text = self._templates.get_template("message.html").render(
            sentence=sentence, token=token, path=request.url.path, scope=None
        )
        return HTMLResponse(text, status_code=code, headers={"Retry-After": "10"} if code == 503 else None)

    def _page(self, template: str, scope: Scope, **values: Any) -> Response:
        troubles = [source.trouble for source in self._sources.by_key.values() if source.trouble]
        here = template.partition(".")[0]
        text = self._templates.get_template(template).render(scope=scope, here=here, troubles=troubles, **values)
        return HTMLResponse(text)

    def _scope(self, key: str) -> Scope:
        scope = self._sources.scope(key)
        if scope is not None:
            return scope
        asked = [source for own, source in self._sources.by_key.items() if key in (own, ALL)]
        if not asked:
            raise HTTPException(404)
        source = next((source for source in asked if source.trouble), asked[0])
        raise HTTPException(503, source.trouble or f"There is no data set at {source.url} yet.")

    def _one(self, key: str) -> tuple[Scope, View]:
        if key == ALL:
            raise HTTPException(404)
        scope = self._scope(key)
        return scope, scope.views[0]

    def _known(self, find: Callable[[], Any]) -> Any:
        """What an id names; ids are looked up among those of the catalog and the ledger, and are never a path."""
        try:
            return find()
        except (KeyError, FileNotFoundError) as error:
            raise HTTPException(404) from error


def _choices(scope: Scope, column: str) -> list[str]:
    return sorted(value for value in scope.slides.column(column).unique().to_pylist() if value is not None)


def _statuses(scope: Scope) -> list[str]:
    return [name.removeprefix("stain_") for name in scope.slides.column_names if name.startswith("stain_")]


def _some(view: View) -> list[GroupRecord]:
    """Committed groups spread over a data set."""
    records = [record for record in view.committed.records if record.shards]
    places = (
        np.linspace(0, len(records) - 1, MIXED_GROUPS).round() if len(records) > MIXED_GROUPS else range(len(records))
    )
    return [records[int(place)] for place in places]


def _kept(view: View, group: int) -> NDArray[np.int64]:
    """int64 (N,): samples of each slide of a committed group that has some."""
    slides = view.committed.slides
    own = slides.filter(pc.equal(slides.column("group"), group)).column("kept")
    kept = np.array([value or 0 for value in own.to_pylist()], dtype=np.int64)
    return kept[kept > 0]


def _ticks(text: str | None) -> Markup:
    """Words with what stands between backticks as code; everything else is escaped."""
    parts = [escape(part) for part in (text or "").split("`")]
    code = len(parts) % 2 == 1
    return Markup().join(
        Markup("<code>{}</code>").format(part) if code and number % 2 else part for number, part in enumerate(parts)
    )
