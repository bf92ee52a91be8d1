"""The report: what was found, with every figure that it follows from, whatever it was."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from exaone_train.collapse.words import words as words_of
from reproduction.contrast import Estimate
from reproduction.design import MACENKO, NONE, Arm, Look, Size
from reproduction.findings import PRIMARY, QUESTIONS, UNTRAINED, Findings
from reproduction.tissue import LABS_HELD_OUT, SLIDES_HELD_OUT

_TISSUE = {
    LABS_HELD_OUT: "Tissue told in laboratories not seen",
    SLIDES_HELD_OUT: "Tissue told on slides not seen",
}
_ENDS = {
    "silhouette_slide": (-1.0, 1.0),
    "silhouette_centre": (-1.0, 1.0),
    "knn_gap": (-1.0, 1.0),
    "clustering_score_centre": (-1.0, 1.0),
    "neighbour_ratio_centre": (0.0, math.inf),
}
"""The least and the most that a measure can be, where that is not 0 and 1."""

_ARMS = (NONE.look, MACENKO.look)
CHOSEN = (PRIMARY, "slide_probe", "same_centre_knn", "centre_probe", "robustness_index_centre", LABS_HELD_OUT)
"""What the shorter tables show."""


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """Of a reproduction.

    Attributes:
        size: How much of it.
        minutes: The main comparison took, from slides to measures; None if it was not done in one go.
        slides: In all.
        patches: In each data set.
        digests: Of the data sets, by name.
        machine: A few words.
        versions: Of what decides figures, by package.
    """

    size: Size
    minutes: int | None
    slides: int
    patches: int
    digests: dict[str, str]
    machine: str
    versions: dict[str, str]


def named(look: Look) -> str:
    """An arm by its name, where its encoders are shown what they were trained on."""
    by, shown = look
    return by if look in _ARMS or by not in (NONE.name, MACENKO.name) else f"{by}, shown {shown}"


def title(key: str) -> str:
    """A measure in a few words."""
    return _TISSUE.get(key) or words_of(key).title


def less_is_better(key: str) -> bool:
    """Whether less of it means less collapse."""
    return key not in _TISSUE and words_of(key).less


def verdict(key: str, one: Estimate) -> str:
    """What a difference means."""
    if not one.told_apart:
        return "not told apart"
    return "better" if (one.value < 0) == less_is_better(key) else "worse"


def headline(findings: Findings) -> str:
    """What was found, whichever way it went: the primary measure, for both questions."""
    before, after = (findings.estimate(PRIMARY, look) for look in _ARMS)
    as_used, training = (findings.difference(PRIMARY, *QUESTIONS[question]) for question in ("arms", "training"))
    shown = findings.difference(PRIMARY, QUESTIONS["training"][1], _ARMS[0])
    how = {"better": "less", "worse": "more", "not told apart": "neither less nor more"}
    adds = {
        "better": "makes features cluster less on top of that",
        "worse": "makes features cluster more again",
        "not told apart": "is not told apart from nothing",
    }
    return (
        f"With normalisation as it would be used, features of held-out slides cluster "
        f"**{how[verdict(PRIMARY, as_used)]} by slide**: of a patch's ten nearest neighbours {after.value:.1%} lie on "
        f"its own slide instead of {before.value:.1%}, a difference of {_signed(as_used)}; by chance it would be "
        f"{findings.chance(PRIMARY):.1%}. Of this, {_signed(shown)} is what normalising the patches does that an "
        f"encoder is *shown*. What normalising does *before pre-training* **{adds[verdict(PRIMARY, training)]}**: "
        f"{_signed(training)}."
    )


def learned(findings: Findings) -> str:
    """Whether training taught anything that shows on the patches of the second question, and on what arms are shown."""
    told = {
        look: findings.difference(SLIDES_HELD_OUT, look, (UNTRAINED, look[1]))
        for look in (*reversed(QUESTIONS["training"]), _ARMS[0])
    }
    better = {look: verdict(SLIDES_HELD_OUT, one) == "better" for look, one in told.items()}
    which = ("neither arm", "one arm only", "both arms")[sum(better[look] for look in QUESTIONS["training"])]
    gains = [f"{_signed(one)} ({verdict(SLIDES_HELD_OUT, one)})" for one in told.values()]
    void = "" if which == "both arms" else " **Of what pre-training does to collapse nothing can be concluded.**"
    return (
        f"Training taught **{which}** something of tissue that shows on normalised patches of slides not seen: "
        f"against untrained encoders the accuracy of a linear classifier changes by {gains[0]} for *none* and by "
        f"{gains[1]} for *macenko*; on patches as scanned, by {gains[2]} for *none*.{void}"
    )


def least(detectable: dict[str, float], keys: Sequence[str] = CHOSEN) -> str:
    """Smallest detectable differences of the shorter tables' measures."""
    return ", ".join(f"{detectable[key]:.3f} for `{key}`" for key in keys)


def main_table(findings: Findings, detectable: dict[str, float]) -> str:
    """Every measure of both arms, their difference, and what could be told apart at all."""
    rows = [["", *(look[0] for look in _ARMS), "difference", "detectable", ""]]
    for key in findings.keys:
        change = findings.difference(key, *QUESTIONS["arms"])
        chance = findings.chance(key)
        words = f"{title(key)}<br>`{key}`" + ("" if chance is None else f", chance {chance:.3f}")
        cells = [_with_interval(key, findings.estimate(key, look)) for look in _ARMS]
        told = f"{detectable[key]:.3f}" if key in detectable else "–"
        rows.append([f"**{words}**" if key == PRIMARY else words, *cells, _signed(change), told, verdict(key, change)])
    return _table(rows)


def by_input_table(findings: Findings, keys: Sequence[str] = CHOSEN) -> str:
    """What encoders make of patches as scanned and of the same patches normalised."""
    rows = [["", "trained on", "shown: as scanned", "shown: normalised"]]
    for key in keys:
        for by in (UNTRAINED, NONE.name, MACENKO.name):
            cells = [_with_interval(key, findings.estimate(key, (by, shown))) for shown in (NONE.shown, MACENKO.shown)]
            on = "nothing yet" if by == UNTRAINED else "as scanned" if by == NONE.name else "normalised"
            rows.append([title(key) if by == UNTRAINED else "", on, *cells])
    return _table(rows)


def sources_table(findings: Findings, keys: Sequence[str] = CHOSEN) -> str:
    """The main difference taken apart, and what training does to either input."""
    mixed = (NONE.name, MACENKO.shown)
    steps = {
        "normalising what an encoder is shown": (mixed, _ARMS[0]),
        "normalising what it was trained on, too": (_ARMS[1], mixed),
        "training, on patches as scanned": (_ARMS[0], (UNTRAINED, NONE.shown)),
        "training, on normalised patches": (_ARMS[1], (UNTRAINED, MACENKO.shown)),
    }
    rows = [["", *steps]]
    rows += [[title(key), *(_judged(key, findings.difference(key, *pair)) for pair in steps.values())] for key in keys]
    return _table(rows)


def seeds_table(findings: Findings, looks: Sequence[Look], key: str = PRIMARY) -> str:
    """One measure, run by run."""
    rows = [["seed", *(named(look) for look in looks)]]
    figures = [findings.estimate(key, look).seeds for look in looks]
    for number, seed in enumerate(findings.seeds):
        rows.append([str(seed), *(f"{of_look[number]:.3f}" for of_look in figures)])
    return _table(rows)


def levers_table(findings: Findings, arms: Sequence[Arm], keys: Sequence[str] = CHOSEN) -> str:
    """What each lever changes, against the arm `macenko`."""
    rows = [["against *macenko*", *(f"{title(key)}" for key in keys)]]
    for arm in arms:
        cells = [_judged(key, findings.difference(key, arm.look, MACENKO.look)) for key in keys]
        rows.append([f"**{arm.name}**: {arm.title}", *cells])
    return _table(rows)


def real_table(real: Findings) -> str:
    """The two arms on real patches."""
    rows = [["", *(look[0] for look in _ARMS), "difference"]]
    for key in real.keys:
        cells = [_with_interval(key, real.estimate(key, look)) for look in _ARMS]
        rows.append([title(key), *cells, _judged(key, real.difference(key, _ARMS[1], _ARMS[0]))])
    return _table(rows)


def circumstances(about: Circumstances) -> str:
    """What was run on what."""
    size = about.size
    took = "" if about.minutes is None else f" The main comparison took {about.minutes} minutes."
    versions = ", ".join(f"{name} {version}" for name, version in about.versions.items())
    digests = "\n".join(f"- `{name}`: {digest}" for name, digest in about.digests.items())
    return (
        f"{about.slides} generated slides (seed {size.corpus_seed}), {about.patches:,} patches in each data set, "
        f"{size.steps:,} steps of training, seeds {', '.join(map(str, size.seeds))}.{took}\n\n{about.machine}; "
        f"{versions}.\n\nDigests of the data sets:\n\n{digests}\n"
    )


def _with_interval(key: str, one: Estimate) -> str:
    """Limits end where the measure does."""
    least, most = _ENDS.get(key, (0.0, 1.0))
    low, high = one.interval
    return f"{one.value:.3f} [{max(low, least):.3f}, {min(high, most):.3f}]".replace("-", "−")


def _signed(one: Estimate) -> str:
    low, high = one.interval
    return f"{one.value:+.3f} [{low:+.3f}, {high:+.3f}]".replace("-", "−")


def _judged(key: str, one: Estimate) -> str:
    return f"{_signed(one)} {verdict(key, one)}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *rest = rows
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rest)]
    return "\n".join(lines) + "\n"
