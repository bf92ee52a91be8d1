"""The report as one HTML page that needs nothing else: own style, inline SVG, pictures as data URIs."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from exaone_train.charts import Interval, intervals, scatter
from exaone_train.collapse.measure import FEW_SLIDES, MEASURES, EncoderReport, Report
from exaone_train.collapse.pictures import MAP_PATCHES, SHEET_NEIGHBOURS, SheetRow, pictures_of, sheet, spread_out, tsne
from exaone_train.collapse.table import FeatureTable
from exaone_train.collapse.words import words

STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#59636e;--line:#d7dde3;--ground:#fff;--card:#f6f8fa}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ed;--soft:#9aa5b1;--line:#39424c;--ground:#14181d;--card:#1c2229}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1180px;padding:32px 24px 64px;background:var(--ground);color:var(--ink);
font:16px/1.5 system-ui,sans-serif}
h1{margin:0 0 4px;font-size:30px}h2{margin:48px 0 12px;font-size:22px}h3{margin:0 0 2px;font-size:16px}
p{max-width:72ch}.soft{color:var(--soft);font-size:14px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:8px 12px;border-bottom:1px solid var(--line);text-align:right;vertical-align:top}
th:first-child,td:first-child{text-align:left}td:first-child{min-width:240px}
thead th{border-bottom:2px solid var(--line)}
.value{font-weight:600}.small{display:block;color:var(--soft);font-size:13px;white-space:nowrap}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(440px,1fr));gap:16px}
.card,figure{margin:0;padding:14px 16px;background:var(--card);border:1px solid var(--line);border-radius:8px}
.maps{display:grid;grid-template-columns:repeat(auto-fill,minmax(340px,1fr));gap:16px}
figcaption{margin-bottom:8px;font-size:14px;font-weight:600}
svg{max-width:100%;height:auto}svg text{fill:var(--ink);font:12px system-ui,sans-serif}
svg .grid{stroke:var(--line)}svg .chance{stroke:var(--soft);stroke-width:2;stroke-dasharray:3 2}
.sheet{display:grid;grid-template-columns:repeat(9,auto);gap:12px;justify-content:start;overflow-x:auto;padding:4px}
.sheet img{display:block;width:96px;height:96px;margin-bottom:7px}
.patch{font-size:11px;line-height:1.3;color:var(--soft)}.patch b{display:block;overflow:hidden;text-overflow:ellipsis;
white-space:nowrap;font-weight:400}
.patch{width:96px}.query{margin-right:12px}.same img{outline:4px solid #d55e00}
.other img{outline:4px solid #0072b2}
.key{display:inline-block;width:12px;height:12px;border-radius:3px}
"""


def page(report: Report, tables: Sequence[FeatureTable], places: Path | None = None) -> str:
    """The page.

    Args:
        report: What was measured.
        tables: Of the same encoders in the same order, with the patches that were measured.
        places: Where pictures of patches lie (`pictures_of`).
    """
    first = report.encoders[0]
    parts = [
        "<h1>Feature collapse</h1>",
        f'<p class="soft">{_scope(report)}</p>',
        "<p>Features that cluster by slide, centre or scanner describe how a slide was made rather than what it shows. "
        "Brackets are 95 % intervals over slides; dashed marks are what features would get that know nothing.</p>",
    ]
    if first.slides < FEW_SLIDES:
        parts.append(f"<p><strong>{first.slides} slides are few: the intervals are rough guesses.</strong></p>")
    parts += [
        "<h2>Measures</h2>",
        _table(report),
        f'<div class="cards" style="margin-top:24px">{"".join(_card(report, key) for key in _keys(report))}</div>',
        "<h2>Maps</h2>",
        '<p class="soft">t-SNE by cosine distance of up to '
        f"{MAP_PATCHES:,} patches. Distances between far groups mean little.</p>",
        "".join(_maps(table, report.options.seed) for table in tables),
    ]
    sheets = [_sheet(table, report.options.seed, places) for table in tables]
    if any(sheets):
        parts += [
            "<h2>Nearest neighbours</h2>",
            '<p class="soft">Left a patch by chance, right of it its nearest neighbours. '
            '<span class="key" style="background:#d55e00"></span> same slide, '
            '<span class="key" style="background:#0072b2"></span> another slide.</p>',
            *sheets,
        ]
    parts += [_absent(report), _settings(report)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Feature collapse</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{STYLE}</style></head><body><main>{''.join(parts)}</main></body></html>\n"
    )


def figures(value: float) -> str:
    """A figure with three decimals and a true minus."""
    return "–" if value != value else f"{value:.3f}".replace("-", "−")


def _scope(report: Report) -> str:
    return "; ".join(
        f"{escape(one.name)}: {one.patches:,} patches of {one.slides:,} slides, {one.dimensions:,} dimensions"
        for one in report.encoders
    )


def _keys(report: Report) -> list[str]:
    return [key for key in MEASURES if any(key in one.measures for one in report.encoders)]


def _table(report: Report) -> str:
    head = "".join(f'<th scope="col">{escape(one.name)}</th>' for one in report.encoders)
    rows = []
    for key in _keys(report):
        said = words(key)
        cells = "".join(f"<td>{_cell(report, key, one)}</td>" for one in report.encoders)
        aim = "less is better" if said.less else "more is better"
        rows.append(
            f"<tr><td><strong>{escape(said.title)}</strong>"
            f'<span class="small"><code>{key}</code>, {aim}</span></td>{cells}</tr>'
        )
    return (
        f'<table><thead><tr><th scope="col">measure</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
        + (
            '<p class="soft">Δ is the difference to the first encoder, its interval over the same draws of slides.</p>'
            if report.paired
            else ""
        )
    )


def _cell(report: Report, key: str, encoder: EncoderReport) -> str:
    if key not in encoder.measures:
        return "–"
    one = encoder.measures[key]
    low, high = one.interval
    lines = [f'<span class="value">{figures(one.value)}</span>', _small(f"[{figures(low)}, {figures(high)}]")]
    if one.chance is not None:
        lines.append(_small(f"chance {figures(one.chance)}"))
    if (slides := one.details.get("slides", encoder.slides)) != encoder.slides:
        lines.append(_small(f"on {slides} slides"))
    if (difference := report.difference(key, encoder)) is not None:
        value, low, high = difference
        lines.append(_small(f"Δ {figures(value)} [{figures(low)}, {figures(high)}]"))
    return "".join(lines)


def _small(text: str) -> str:
    return f'<span class="small">{text}</span>'


def _card(report: Report, key: str) -> str:
    rows = []
    for one in report.encoders:
        if key in one.measures:
            got = one.measures[key]
            low, high = got.interval
            rows.append(Interval(name=one.name, value=got.value, low=low, high=high, chance=got.chance))
    said = words(key)
    return (
        f'<div class="card"><h3>{escape(said.title)}</h3><div class="soft">{escape(said.sentence)}</div>'
        f"{intervals(rows, title=said.title)}</div>"
    )


def _maps(table: FeatureTable, seed: int) -> str:
    some = spread_out(table, MAP_PATCHES, seed)
    points = tsne(some, seed)
    drawn = []
    for column, said in (("slide_id", "slide"), ("centre", "lab"), ("scanner", "scanner"), ("label", "tissue")):
        names = getattr(some, column)
        if names is not None:
            title = f"{table.name} by {said}"
            drawn.append(
                f"<figure><figcaption>{escape(title)}</figcaption>{scatter(points, names, title=title)}</figure>"
            )
    return f'<div class="maps" style="margin-bottom:16px">{"".join(drawn)}</div>'


def _sheet(table: FeatureTable, seed: int, places: Path | None) -> str:
    rows = sheet(table, seed)
    pictures = pictures_of(table, (one for row in rows for one in (row.row, *row.neighbours)), places)
    if not pictures:
        return ""
    cells = "".join(_sheet_row(table, row, pictures) for row in rows)
    return f'<h3>{escape(table.name)}</h3><div class="sheet" style="margin-bottom:24px">{cells}</div>'


def _sheet_row(table: FeatureTable, row: SheetRow, pictures: dict[int, str]) -> str:
    def patch(one: int, kind: str, below: str) -> str:
        slide = escape(str(table.slide_id[one]))
        picture = f'<img src="{pictures[one]}" alt="patch of {slide}">' if one in pictures else "no picture"
        return f'<div class="patch {kind}" title="{slide}">{picture}<b>{slide}</b>{below}</div>'

    cells = [patch(row.row, "query", "" if table.label is None else escape(str(table.label[row.row])))]
    for one, cosine in zip(row.neighbours, row.similarity, strict=True):
        same = table.slide_id[one] == table.slide_id[row.row]
        cells.append(patch(one, "same" if same else "other", figures(cosine)))
    cells += ["<div></div>"] * (SHEET_NEIGHBOURS - len(row.neighbours))
    return "".join(cells)


def _absent(report: Report) -> str:
    reasons = {
        (escape(one.name), reason): [key for key, why in one.absent.items() if why == reason]
        for one in report.encoders
        for reason in one.absent.values()
    }
    if not reasons:
        return ""
    said = "".join(
        f"<li>{name}: {', '.join(f'<code>{key}</code>' for key in keys)}: {escape(reason)}.</li>"
        for (name, reason), keys in reasons.items()
    )
    return f'<h2>Not measured</h2><ul class="soft">{said}</ul>'


def _settings(report: Report) -> str:
    said = ", ".join(f"{name} {value}" for name, value in vars(report.options).items() if value is not None)
    return f'<h2>Settings</h2><p class="soft">{escape(said)}.</p>'
