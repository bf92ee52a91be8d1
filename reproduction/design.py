"""What is compared with what: arms, sizes, and where everything lies."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
CONFIG: Final = ROOT / "configs" / "miniature.yaml"

LABS: Final = 6
"""As many as have stains of their own; the generator varies these for further ones."""
PATCH_PX: Final = 64
MPP: Final = 2.0
"""A patch shows 128 µm, as one of 256 px at 0.5 µm/px does; it is that, reduced to a quarter."""
HELD_OUT: Final = "val"


Look = tuple[str, str]
"""How an encoder came about (an arm's name, or `untrained`), and as in which data set it is shown the patches."""


class ReproductionError(Exception):
    """Something that makes the comparison void, or ends it; its text is a sentence."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way of preparing and training.

    Attributes:
        name: In tables.
        title: What it is.
        data: Name of the data set that it is trained on.
        shown: Name of the data set whose held-out patches it is shown; of the same keys as `data`.
        train: Changes of the configuration of training.
    """

    name: str
    title: str
    data: str
    shown: str
    train: dict[str, str] = field(default_factory=dict)

    @property
    def look(self) -> Look:
        """Its encoders as they are used."""
        return self.name, self.shown


DATA_SETS: Final[dict[str, dict[str, str]]] = {
    "none": {"stain.method": "none"},
    "macenko": {"stain.method": "macenko"},
    "patch": {"stain.method": "macenko", "stain.fit": "patch"},
    "unmixed": {"stain.method": "macenko", "shards.slides_per_group": "1"},
}
"""Changes of the manifest; the first two differ in nothing else."""

NONE: Final = Arm(name="none", title="as scanned", data="none", shown="none")
MACENKO: Final = Arm(name="macenko", title="normalised, one fit per slide", data="macenko", shown="macenko")
ARMS: Final = (NONE, MACENKO)

LEVERS: Final = (
    Arm(
        name="macenko + stain jitter",
        title="normalised, and HED stain jitter on top",
        data="macenko",
        shown="macenko",
        train={"crops.preset": "pathology"},
    ),
    Arm(
        name="stain jitter alone",
        title="as scanned, and HED stain jitter",
        data="none",
        shown="none",
        train={"crops.preset": "pathology"},
    ),
    Arm(name="fit: patch", title="normalised, one fit per patch", data="patch", shown="patch"),
    Arm(
        name="unmixed",
        title="normalised, shards of one slide read one after the other",
        data="unmixed",
        shown="macenko",
        train={"data.streams": "1"},
    ),
)


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of it.

    Attributes:
        name: Of the folder.
        corpus_seed: Of the generated slides.
        rounds: Slides of each laboratory; a round, one slide of every laboratory, is in one split.
        held_out: Share of the rounds that is not trained on, about.
        held_out_rounds: Which ones that are, by number; it follows from `held_out` and `split_seed`.
        split_seed: Of the manifest.
        seeds: Of training: order, crops and weights.
        lever_seeds: So many of them for each of the levers.
        steps: Of each run.
        caveat: What is to be thought of its figures; nothing if they are findings.
    """

    name: str
    corpus_seed: int
    rounds: int
    held_out: float
    held_out_rounds: tuple[int, ...]
    split_seed: int
    seeds: tuple[int, ...]
    lever_seeds: int
    steps: int
    caveat: str = ""

    @property
    def slides(self) -> int:
        """How many."""
        return self.rounds * LABS


MAIN: Final = Size(
    name="main",
    corpus_seed=1,
    rounds=15,
    held_out=1 / 3,
    held_out_rounds=(4, 7, 8, 10, 11),
    split_seed=38,
    seeds=(0, 1, 2, 3),
    lever_seeds=3,
    steps=2_400,
)
"""The smallest split seed by which every laboratory has each of the five kinds of tissue among its held-out slides."""
PILOT: Final = Size(
    name="pilot",
    corpus_seed=100,
    rounds=12,
    held_out=0.3,
    held_out_rounds=(7, 8),
    split_seed=0,
    seeds=(100, 101, 102),
    lever_seeds=1,
    steps=2_400,
    caveat="A pilot, to know how much figures vary: its own are no findings.",
)
"""Other slides and other seeds than those of the main runs."""
QUICK: Final = Size(
    name="quick",
    corpus_seed=200,
    rounds=4,
    held_out=0.5,
    held_out_rounds=(2, 3),
    split_seed=0,
    seeds=(0, 1),
    lever_seeds=2,
    steps=60,
    caveat="A size to see whether everything works: its figures are no findings.",
)


@dataclass(frozen=True)
class Places:
    """Where a reproduction lies."""

    root: Path

    @property
    def slides(self) -> Path:
        """Generated slides and their truth."""
        return self.root / "slides"

    @property
    def manifest(self) -> Path:
        """Of all data sets."""
        return self.root / "manifest.yaml"

    @property
    def took(self) -> Path:
        """How many minutes the main comparison took, if it was done in one go."""
        return self.root / "minutes"

    def data(self, name: str) -> Path:
        """A data set."""
        return self.root / "data" / name

    def run(self, arm: Arm, seed: int) -> Path:
        """A run of training."""
        return self.root / "runs" / f"{plain(arm.name)}-{seed}"


def plain(name: str) -> str:
    """A name as part of a file's."""
    return "-".join("".join(letter if letter.isalnum() else " " for letter in name).split())
