"""A corpus of any size without its pixels: files that stand for slides, and builds that leave out only reading them.

Catalog, groups, plan, index, survey, commit, ledger and publication are the project's own code on tables of the real
size. Not real are: the slides (each a file of a few words), what a survey and a cut would have found (drawn at random,
with the spread of a real corpus), the shards (a tar with a note instead of 10,000 images; the ledger holds its true
size and checksum) and the pictures of slides (a zip without any). The index says where images would lie in real shards.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from group_build import peak_mib
from numpy.typing import NDArray

from exaone_prep.attempt_log import AttemptLog
from exaone_prep.build import Failure, attempt
from exaone_prep.channel_sums import ChannelSums
from exaone_prep.cut import DROP_REASONS, SlideCut
from exaone_prep.dataset import open_dataset
from exaone_prep.errors import SlideProblemError
from exaone_prep.group import GroupBuilder
from exaone_prep.manifest import Manifest, parse_manifest
from exaone_prep.packing import Packed
from exaone_prep.pictures import write_slides_zip
from exaone_prep.pixels import PixelSource
from exaone_prep.plan import GroupPlan, plan_group
from exaone_prep.pool import WorkerPool
from exaone_prep.reading import GroupSlide
from exaone_prep.room import Room
from exaone_prep.scratch import Scratch
from exaone_prep.shards.index import SCHEMA
from exaone_prep.shards.pack import ShardRecord
from exaone_prep.shards.sample import STAIN_STATUSES, shard_name
from exaone_prep.shards.tar import BLOCK_BYTES, TarWriter
from exaone_prep.slides import LevelChoice
from exaone_prep.stage import Staging
from exaone_prep.stain import MACENKO_REFERENCE, FitDiagnostics, StainFit
from exaone_prep.survey import SlideSurvey

PAPER_SLIDES: Final = 34_795
PAPER_PATCHES: Final = 285_153_903

_CHOICE: Final = LevelChoice(
    level=0,
    level_mpp=0.25,
    downsample=1.0,
    reduction=2,
    read_size_px=512,
    size_px=256,
    requested_mpp=0.5,
    effective_mpp=0.5,
    footprint_px=512.0,
)
_FIT: Final = StainFit(
    stain_matrix=MACENKO_REFERENCE.stain_matrix,
    max_concentration=MACENKO_REFERENCE.max_concentration,
    diagnostics=FitDiagnostics(n_pixels=4_194_304, n_kept=2_900_000, angle_deg=22.3, eigenvalues=(0.3, 0.02, 0.002)),
)
_PATCH_BYTES: Final = 19_500
_PROPERTIES: Final = (("aperio.AppMag", "40"), ("aperio.MPP", "0.2520"), ("openslide.vendor", "aperio"))


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """How many slides and patches there shall be."""

    slides: int = PAPER_SLIDES
    patches: int = PAPER_PATCHES

    def write(self, folder: Path) -> Manifest:
        """Write a file for each slide, in two cohorts, and return the manifest that finds them."""
        for cohort in ("tcga", "hospital"):
            (folder / cohort).mkdir(parents=True)
        for number, patches in enumerate(self.patches_per_slide().tolist()):
            cohort = "tcga" if number % 3 else "hospital"
            told = {"slide": number, "planned": patches, "broken": _is_broken(number)}
            (folder / cohort / f"{_name(number)}.svs").write_text(json.dumps(told))
        regex = "^(TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})"
        cohorts = [
            {"name": name, "slides": [f"{folder}/{name}/*.svs"], "patient_regex": regex}
            for name in ("tcga", "hospital")
        ]
        return parse_manifest({"name": "stand-in", "cohorts": cohorts, "splits": {}}, {}, where="stand-in")

    def patches_per_slide(self) -> NDArray[np.int64]:
        """int64 (slides,): a log-normal spread that adds up exactly; nothing on broken slides and on one in 100."""
        numbers = np.arange(self.slides)
        weights = np.random.default_rng(0).lognormal(0.0, 0.6, self.slides)
        weights[_is_broken(numbers) | (numbers % 100 == 3)] = 0.0
        # Differences of a rounded running sum add up to its end.
        ends = np.rint(np.cumsum(weights) / weights.sum() * self.patches).astype(np.int64)
        counts: NDArray[np.int64] = np.diff(ends, prepend=0)
        return counts


def _is_broken(number: Any) -> Any:
    return number % 250 == 17


def _name(number: int) -> str:
    """As long as TCGA's: a barcode, whose patient has two slides, and 36 characters."""
    patient, token = number // 2, hashlib.blake2b(str(number).encode(), digest_size=18).hexdigest()
    return f"TCGA-{patient // 10_000:02d}-{patient % 10_000:04d}-01Z-00-DX{number % 2 + 1}-{token}".upper()


@dataclass
class StandInBuilder(GroupBuilder):
    """Builds groups without reading a pixel: all that is not overridden here is the project's own."""

    _values: _Values = field(default_factory=lambda: _Values())

    def _read(
        self,
        slides: list[GroupSlide],
        staging: Staging,  # noqa: ARG002 (as overridden)
        room: Room,  # noqa: ARG002
        log: AttemptLog,  # noqa: ARG002
    ) -> None:
        for slide in slides:
            told = json.loads(Path(self.dataset.names.uris[slide.row.slide_id]).read_text())
            if told["broken"]:
                slide.problem = SlideProblemError("no_mpp", "The file does not say how many µm a pixel spans.")
                slide.survey = SlideSurvey(slide_id=slide.row.slide_id, problem=slide.problem, reader="openslide")
            else:
                slide.survey = _survey(slide.row.slide_id, told["planned"])
                slide.cut = _cut(told["planned"]) if told["planned"] else None

    def _pack(self, group: int, slides: Sequence[GroupSlide], folder: Path) -> Packed:
        some = [slide for slide in slides if slide.to_cut]
        settings = self.dataset.manifest
        plan = plan_group(
            [(slide.row.slide_id, slide.known().planned) for slide in some],
            samples_per_shard=settings.shards.samples_per_shard,
            seed=settings.seed,
        )
        names = [shard_name(group, number) for number in range(plan.shards)]
        whole = _index(some, plan, names, self._values.of(group, len(plan.sample)))
        shards, tables = [], []
        for name, begin, end in zip(names, plan.bounds[:-1].tolist(), plan.bounds[1:].tolist(), strict=True):
            tables.append(whole.slice(begin, end - begin))
            shards.append((_write_shard(folder / name, end - begin), folder / name))
        write_slides_zip(folder / "pictures.zip", ())
        return Packed(shards=shards, tables=tables, pictures=folder / "pictures.zip")


def _survey(slide_id: str, planned: int) -> SlideSurvey:
    return SlideSurvey(
        slide_id=slide_id,
        reader="openslide",
        vendor="aperio",
        width_px=98_304,
        height_px=81_920,
        levels=4,
        mpp=0.25,
        mpp_source="vendor",
        choice=_CHOICE,
        objective_power=40.0,
        properties=_PROPERTIES,
        tissue_mm2=planned * 0.128**2,
        tissue_threshold=21,
        planned=planned,
        pixels=PixelSource(pixels="tiles", jpeg_reduction=2),
        fit=_FIT,
    )


def _cut(kept: int) -> SlideCut:
    pixels = kept * _CHOICE.size_px**2
    return SlideCut(
        kept=kept,
        bytes=kept * _PATCH_BYTES,
        dropped=dict.fromkeys(DROP_REASONS, 0),
        statuses={status: kept if status == "fitted" else 0 for status in STAIN_STATUSES},
        # As if every channel had a mean of 200 and a standard deviation of 30.
        sums=ChannelSums(pixels=pixels, totals=pixels * np.array([200] * 3 + [200**2 + 30**2] * 3, dtype=np.int64)),
    )


class _Values:
    """Columns that are measured, drawn once per process: other groups get other parts of them."""

    _COUNT = 1 << 20

    @cached_property
    def _drawn(self) -> dict[str, NDArray[Any]]:
        random = np.random.default_rng(1)
        count = self._COUNT
        return {
            "tissue_fraction": np.round(np.minimum(1.0, random.uniform(0.5, 1.6, count)), 4),
            "white_fraction": (random.integers(-40_000, 30_000, count).clip(0) / 65_536).astype(np.float32),
            "black_fraction": (random.integers(-200_000, 600, count).clip(0) / 65_536).astype(np.float32),
            "pen_fraction": (random.integers(-400_000, 900, count).clip(0) / 65_536).astype(np.float32),
            "sharpness": random.lognormal(0.0, 0.5, count).astype(np.float32),
            "image_size": random.lognormal(np.log(_PATCH_BYTES), 0.3, count).astype(np.int32),
        }

    def of(self, group: int, count: int) -> dict[str, NDArray[Any]]:
        """So many values of each column."""
        places = np.arange(group * 7_919, group * 7_919 + count, dtype=np.int32) % self._COUNT
        return {name: drawn[places] for name, drawn in self._drawn.items()}


def _index(
    slides: Sequence[GroupSlide], plan: GroupPlan, names: Sequence[str], values: dict[str, NDArray[Any]]
) -> pa.Table:
    """The index of a group, in the order of its shards."""
    count = len(plan.sample)
    shard = np.repeat(np.arange(plan.shards, dtype=np.int32), np.diff(plan.bounds))
    across = np.array([max(1, round((1.5 * slide.known().planned) ** 0.5)) for slide in slides], dtype=np.int64)
    json_bytes = np.array([140 + len(slide.row.slide_id) for slide in slides], dtype=np.int32)
    # Header and image, then header and JSON, each padded to blocks.
    padded = -(-values["image_size"].astype(np.int64) // BLOCK_BYTES) * BLOCK_BYTES
    ends = np.cumsum(padded + 3 * BLOCK_BYTES)
    begins = ends - padded - 3 * BLOCK_BYTES
    begins -= begins[plan.bounds[:-1]][shard] if count else 0
    columns = {
        "slide_id": _repeated([slide.row.slide_id for slide in slides], plan.slide),
        "cohort": _repeated([slide.row.cohort for slide in slides], plan.slide),
        "patient_id": _repeated([slide.row.patient_id for slide in slides], plan.slide),
        "x": (plan.sample % across[plan.slide] * _CHOICE.read_size_px).astype(np.int32),
        "y": (plan.sample // across[plan.slide] * _CHOICE.read_size_px).astype(np.int32),
        "level": np.full(count, _CHOICE.level, dtype=np.int8),
        "read_size_px": np.full(count, _CHOICE.read_size_px, dtype=np.int32),
        "footprint_px": np.full(count, _CHOICE.footprint_px),
        "mpp": np.full(count, _CHOICE.effective_mpp),
        **values,
        "stain_status": _repeated(["fitted"], np.zeros(count, dtype=np.int32)),
        "shard": _repeated(names, shard),
        "image_offset": begins + BLOCK_BYTES,
        "json_offset": begins + padded + 2 * BLOCK_BYTES,
        "json_size": json_bytes[plan.slide],
    }
    return pa.table({name: columns[name] for name in SCHEMA.names}, schema=SCHEMA)


def _repeated(texts: Sequence[str], numbers: NDArray[np.int32]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(numbers), pa.array(texts, pa.string())).cast(pa.string())


def _write_shard(tar: Path, samples: int) -> ShardRecord:
    note = f"Stand-in of {tar.name}: {samples:,} samples that the index names are not here.\n".encode()
    with tar.open("xb") as stream:
        writer = TarWriter(stream)
        writer.add("stand-in.txt", note)
        sha256 = writer.close()
    return ShardRecord(name=tar.name, samples=samples, bytes=writer.size_bytes, sha256=sha256)


class StandInExecutor:
    """Builds groups in processes, each group in one."""

    def __init__(self, url: str, scratch: Path, processes: int) -> None:
        """Take the data set's place, for each process to open, and the folder that they share for scratch."""
        self._url, self._scratch, self._processes = url, scratch, processes
        self.peak_mib = 0.0

    def run(self, groups: Sequence[int]) -> Iterator[tuple[int, Failure | None]]:
        """See `exaone_prep.build.Executor`."""
        with ProcessPoolExecutor(self._processes, mp_context=get_context("spawn")) as pool:
            parts = [
                pool.submit(_build_groups, self._url, self._scratch, list(groups[number :: self._processes]))
                for number in range(self._processes)
            ]
            for part in as_completed(parts):
                failures, peak_mib = part.result()
                self.peak_mib += peak_mib
                yield from failures.items()


def _build_groups(url: str, scratch: Path, groups: Sequence[int]) -> tuple[dict[int, Failure | None], float]:
    failures: dict[int, Failure | None] = {}
    with Scratch(scratch) as space:
        builder = StandInBuilder(
            dataset=open_dataset(url, private=True), pool=WorkerPool(1, Path(os.devnull)), scratch=space
        )
        for group in groups:
            failures[group] = attempt(builder, group)
    return failures, peak_mib()
