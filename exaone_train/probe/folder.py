"""Pictures of one's own: a folder per class, slides told by the names of files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from exaone_train.errors import ProbeError
from exaone_train.probe.task import Files, Split, Task, hold_out, listed

ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
SLIDE = r"(.+)[-_]\d+[-_]\d+$"
"""A slide's name before the patch's x and y: `tumor_001_69916_134313`, and keys of shards."""


def folder_task(folder: Path, seed: int = 0, slide: str = SLIDE, share: float = 0.34) -> Task:
    """A task from `<folder>/<class>/<slide>_<x>_<y>.png`, whose slides are kept apart.

    About a third of the slides is for test, a fifth of the others for validation, by the seed. Slides of both classes
    go by their first picture; where a class would be missing in a part, the next seeds are tried.

    Args:
        folder: With a folder per class.
        seed: Of the parts.
        slide: Pattern whose first group is the slide, in a file's name without ending.
        share: Of the pictures that are for test.

    Raises:
        ProbeError: There are fewer than two classes, a name has no slide, or too few slides to keep apart.
    """
    classes = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir())) if folder.is_dir() else ()
    if len(classes) < 2:
        raise ProbeError(f"{folder} does not have a folder for each of two or more classes.")
    paths: list[Path] = []
    labels: list[int] = []
    slides: list[str] = []
    for number, kind in enumerate(classes):
        for path in listed(folder / kind, ENDINGS):
            if (found := re.match(slide, path.stem)) is None:
                raise ProbeError(f"The name of {path} does not say its slide by the pattern {slide}.")
            paths.append(path)
            labels.append(number)
            slides.append(found[1])
    everything = Split(
        images=Files(tuple(paths)), labels=np.array(labels, dtype=np.int64), groups=np.array(slides, dtype=np.str_)
    )
    problem: ProbeError | None = None
    for attempt in range(100):
        rest, test = hold_out(everything, seed + attempt, share)
        train, validation = hold_out(rest, seed + attempt)
        try:
            return Task(
                key="folder",
                title=folder.name,
                classes=classes,
                train=train,
                validation=validation,
                test=test,
                unit="slide",
            )
        except ProbeError as error:
            problem = error
    raise ProbeError(f"The slides of {folder} are too few to keep three parts of all classes apart.") from problem
