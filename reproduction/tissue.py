"""Whether a linear classifier knows tissue on slides, or in laboratories, that it has not seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from exaone_train.collapse.interval import Floats64, draws, mean_over_patches
from exaone_train.collapse.measured import Measured, measured
from exaone_train.collapse.scene import Options, Scene
from exaone_train.collapse.table import FeatureTable
from exaone_train.logistic import fit

Ints = NDArray[np.int64]

LABS_HELD_OUT = "tissue_labs_held_out"
SLIDES_HELD_OUT = "tissue_slides_held_out"


def labs_held_out(scene: Scene) -> Measured:
    """Accuracy for the tissue of a lab's patches, of a classifier that is fitted to all other labs.

    Logistic regression on standardised features with a weight decay of 10⁻³ beside the mean loss; every lab is held out
    in turn. Chance is the share of the commonest tissue. One classifier judges all slides of a lab, so that labs are
    drawn for the interval, and not slides.
    """
    lab = scene.need("centre")
    of_slide = np.zeros(scene.slides, dtype=np.int64)
    of_slide[scene.slide] = lab
    labs = int(lab.max()) + 1
    found = _held_out(scene, lab, draws(labs, scene.options.resamples, scene.options.seed)[:, of_slide])
    return replace(found, details={**found.details, "slides": labs})


def slides_held_out(scene: Scene) -> Measured:
    """The same with the slides of one turn of the laboratories held out, so that every lab has been seen.

    Slides of a lab are put in order by name; the first ones of all labs are held out together, then the second ones.
    """
    lab = scene.need("centre")
    turn = np.zeros(len(lab), dtype=np.int64)
    for one in np.unique(lab):
        rows = lab == one
        turn[rows] = np.unique(scene.slide[rows], return_inverse=True)[1]
    return _held_out(scene, turn, scene.weights)


def _held_out(scene: Scene, fold: Ints, weights: Floats64) -> Measured:
    label = scene.need("label")
    correct = np.full(len(label), np.nan)
    for one in np.unique(fold):
        train, test = fold != one, fold == one
        model = fit(scene.features[train], label[train], int(label.max()) + 1)
        correct[test] = model.probabilities(scene.features[test]).argmax(axis=1) == label[test]
    chance = float(np.bincount(label).max() / len(label))
    share = mean_over_patches(correct, scene.slide, scene.slides)
    return measured(share, weights, chance=chance, folds=len(np.unique(fold)))


def tissue_probes(table: FeatureTable, options: Options) -> dict[str, Measured]:
    """Both, by key."""
    scene = Scene(table=table, options=options)
    return {LABS_HELD_OUT: labs_held_out(scene), SLIDES_HELD_OUT: slides_held_out(scene)}
