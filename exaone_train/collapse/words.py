"""What each measure is called and what it says, for tables and pages."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Words:
    """Of one measure.

    Attributes:
        title: A few words.
        sentence: What the figure is.
        less: Whether less of it means less collapse.
    """

    title: str
    sentence: str
    less: bool


def words(key: str) -> Words:
    """Of a measure's key; those of centre and scanner share theirs."""
    if key in BY_SLIDE:
        return BY_SLIDE[key]
    by = "scanner" if "scanner" in key else "centre"
    shared = BY_CONFOUNDER[key.replace(by, "{}")]
    return Words(title=shared.title.format(by), sentence=shared.sentence.format(by), less=shared.less)


BY_SLIDE = {
    "same_slide_knn": Words(
        title="Neighbours on the same slide",
        sentence="Share of a patch's nearest neighbours that lie on its own slide.",
        less=True,
    ),
    "slide_probe": Words(
        title="Slide told by a linear probe",
        sentence="Accuracy of a linear classifier that names the slide of a patch it has not seen.",
        less=True,
    ),
    "silhouette_slide": Words(
        title="Silhouette by slide",
        sentence="How much nearer a patch is to its own slide than to the next one, −1 … 1; up to 0, no clusters.",
        less=True,
    ),
    "knn_gap": Words(
        title="Gap of accuracy within and across slides",
        sentence="How much better neighbours tell the tissue within a slide than with the slide left out.",
        less=True,
    ),
}
BY_CONFOUNDER = {
    "same_{}_knn": Words(
        title="Neighbours of the same {}",
        sentence="Share of a patch's nearest neighbours on other slides that come from its own {}.",
        less=True,
    ),
    "{}_probe": Words(
        title="The {} told by a linear probe",
        sentence="Accuracy of a linear classifier that names the {} of slides it has not seen.",
        less=True,
    ),
    "silhouette_{}": Words(
        title="Silhouette by {}",
        sentence="How much nearer a patch is to its own {} than to the next one, −1 … 1; up to 0, no clusters.",
        less=True,
    ),
    "robustness_index_{}": Words(
        title="Robustness index against the {}",
        sentence="Among neighbours that are alike in either, the share of the same tissue and another {} (PathoROB).",
        less=False,
    ),
    "neighbour_ratio_{}": Words(
        title="Neighbours alike in tissue over alike in {}",
        sentence="Number of neighbours of the same tissue over those of the same {}; above 1, tissue dominates.",
        less=False,
    ),
    "clustering_score_{}": Words(
        title="Clustering score against the {}",
        sentence="Agreement of k-means with tissue minus that with the {}, −1 … 1 (PathoROB).",
        less=False,
    ),
}
