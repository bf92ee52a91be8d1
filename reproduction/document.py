"""The files of the report: Markdown, figures as JSON, pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

from exaone_train.collapse.table import FeatureTable
from reproduction import pictures, report
from reproduction.contrast import Estimate
from reproduction.design import ARMS, MACENKO, NONE, Arm, Look, Places
from reproduction.findings import PRIMARY, QUESTIONS, Findings
from reproduction.report import Circumstances
from reproduction.tissue import LABS_HELD_OUT

_SURE = """Brackets are 95 % intervals over slides and seeds, for these laboratories and these training slides; those of
tissue in laboratories not seen are over laboratories. With so many measures, one of twenty would be told apart by
chance: the claim is judged by `same_slide_knn` alone."""
_WIDTH = 120
_MAIN_LOOKS = (NONE.look, MACENKO.look)
_ALL_LOOKS: tuple[Look, ...] = (*_MAIN_LOOKS, (NONE.name, MACENKO.shown), (MACENKO.name, NONE.shown))


def write_report(
    folder: Path,
    findings: Findings,
    real: Findings | None,
    about: Circumstances,
    *,
    detectable: dict[str, dict[str, float]],
    maps: Mapping[str, FeatureTable],
    places: Places,
) -> None:
    """`README.md`, `figures.json`, `figures.svg`, `maps.svg` and `patches.jpg`.

    Args:
        folder: To write to.
        findings: On generated slides.
        real: On real patches, if there were any.
        about: What was run.
        detectable: By question and measure, as it was said before the runs.
        maps: Features of one run of each arm, by title.
        places: Where the data sets lie.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(_text(findings, real, about, detectable), encoding="utf-8")
    figures = {"generated": findings.to_json(), "real": None if real is None else real.to_json()}
    (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    shown = {
        report.title(key): (_named(findings, key, _ALL_LOOKS), findings.chance(key))
        for key in (PRIMARY, "same_centre_knn", LABS_HELD_OUT)
    }
    (folder / "figures.svg").write_text(pictures.figures(shown), encoding="utf-8")
    (folder / "maps.svg").write_text(pictures.maps(maps), encoding="utf-8")
    pictures.montage(places, [arm.shown for arm in ARMS]).save(folder / "patches.jpg", quality=88)


def write_levers(folder: Path, findings: Findings, arms: Sequence[Arm], about: Circumstances) -> None:
    """`levers.md` and `levers.json`: the main arms beside what else can be turned."""
    folder.mkdir(parents=True, exist_ok=True)
    looks = list(dict.fromkeys((*_MAIN_LOOKS, *(arm.look for arm in arms))))
    text = f"""# Beyond normalisation: what each lever changes

Made by `make reproduce LEVERS=1`; `docs/reproduction.md`, the plan, says what was done and why. On generated slides, as
[the main comparison](README.md).
{_caveat(about)}
Differences from the arm *macenko*, over {len(findings.seeds)} seeds and {findings.slides} held-out slides.

{_SURE}

{report.levers_table(findings, arms)}
## Run by run

`{PRIMARY}`:

{report.seeds_table(findings, looks)}
## What was run

{report.circumstances(about)}"""
    (folder / "levers.md").write_text(text, encoding="utf-8")
    (folder / "levers.json").write_text(json.dumps(findings.to_json(), indent=1) + "\n", encoding="utf-8")


def _text(
    findings: Findings, real: Findings | None, about: Circumstances, detectable: dict[str, dict[str, float]]
) -> str:
    without, with_it = (findings.estimate(LABS_HELD_OUT, look).value for look in _MAIN_LOOKS)
    labs = report.verdict(LABS_HELD_OUT, findings.difference(LABS_HELD_OUT, *QUESTIONS["arms"]))
    on_real = (
        "There were none on this machine.\n"
        if real is None
        else f"""{real.patches} patches of {real.slides} slides of CAMELYON16, reduced to about 2 µm/px and so 32 px: as
they are for encoders trained on patches as scanned, and normalised by one fit for each slide for the others.
{real.slides} slides are few: these figures show that encoders which never saw a real slide can be measured on some, and
little more.

{report.real_table(real)}"""
    )
    return f"""# The claim in miniature: what was found

Made by `make reproduce`; `docs/reproduction.md`, the plan, says what was done and why.

{_SURE}
{_caveat(about)}
{fill(report.headline(findings), _WIDTH)}

{fill(report.learned(findings), _WIDTH)}

A linear classifier of tissue, held against laboratories that it was not fitted to, is right for {without:.1%} of
patches without normalisation and for {with_it:.1%} with it ({labs}).

![Patches of six laboratories, as scanned and normalised](patches.jpg)

*Held-out patches, a row for each laboratory: as scanned, and the same ones normalised.*

## Generated slides

{fill(_scope(findings) + _said_before(detectable), _WIDTH)}

{report.main_table(findings, detectable.get("arms", {}))}
![Three measures of the four ways to train and look](figures.svg)

*Arms by their names are shown what they were trained on.*

### What encoders make of either input

{report.by_input_table(findings)}
### Where the difference comes from

{report.sources_table(findings)}
{_said_of_training(detectable)}### Run by run

`{PRIMARY}`:

{report.seeds_table(findings, _ALL_LOOKS)}
![Maps of features by laboratory and by tissue](maps.svg)

*The first seed's encoders, each on what it was trained on: the same held-out patches.*

## Real patches

{on_real}
## What was run

{report.circumstances(about)}"""


def _caveat(about: Circumstances) -> str:
    return f"\n**{about.size.caveat}**\n" if about.size.caveat else ""


def _scope(findings: Findings) -> str:
    slides, runs = findings.slides, len(findings.seeds)
    return f"{findings.patches:,} patches of {slides} held-out slides; {runs} runs of each arm."


def _said_before(detectable: dict[str, dict[str, float]]) -> str:
    if not detectable:
        return ""
    meaning = "the smallest true difference that was to be told apart from none with a chance of 80 %"
    return f" *Detectable* is {meaning}, said before the runs."


def _said_of_training(detectable: dict[str, dict[str, float]]) -> str:
    if not detectable:
        return ""
    least = report.least(detectable["training"])
    return fill(f"Of the second column, the smallest detectable differences were {least}.", _WIDTH) + "\n\n"


def _named(findings: Findings, key: str, looks: Sequence[Look]) -> dict[str, Estimate]:
    return {report.named(look): findings.estimate(key, look) for look in looks}
