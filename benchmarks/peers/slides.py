"""One other tool's way from a slide to a tar of JPEG patches, run by the Python that has it: CPU time per patch.

    python slides.py TOOL job.json --runs 3     prints {"ways": {name: ms, …}, …}

The job (see `Job`) names a slide and the upper left corners of the patches to make of it. All tools write JPEG of the
same quality and chroma subsampling. CPU time counts all threads of this process and the processes it starts. Where a
tool knows several ways, all are measured, and the fastest counts.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import io
import json
import resource
import statistics
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Patch = NDArray[np.uint8]
Way = Callable[[Path], int]
"""Makes the patches, writes them to a folder, and gives their number."""


@dataclass(frozen=True)
class Job:
    """What to make of a slide.

    Attributes:
        slide: The file.
        mpp: µm per pixel of its level 0, from which the patches come.
        width_px: Of level 0.
        height_px: Of level 0.
        positions: Upper left corners of the patches, in pixels of level 0.
        reduction: Pixels of level 0 along one pixel of a patch.
        size_px: Side of a patch.
        quality: Of the JPEG; chroma is subsampled 4:2:0.
    """

    slide: str
    mpp: float
    width_px: int
    height_px: int
    positions: list[list[int]]
    reduction: int
    size_px: int
    quality: int

    @property
    def read_px(self) -> int:
        """Side of a patch in pixels of level 0."""
        return self.size_px * self.reduction


def hs2p(job: Job) -> dict[str, Way]:
    """Reads and encodes, nothing else: no normalisation, no measures. Every backend it can use without a GPU."""
    tar: Any = importlib.import_module("hs2p.tiling.tar")
    loaders = {"vips": "pyvips", "openslide": "openslide", "tifffile": "imagecodecs"}
    backends = [backend for backend, module in loaders.items() if _imported(module)]
    encoders = ["pil"]
    if _imported("turbojpeg"):
        try:
            importlib.import_module("turbojpeg").TurboJPEG()
            encoders.insert(0, "turbojpeg")
        except RuntimeError:  # the system has no libturbojpeg
            sys.stderr.write("hs2p: no libturbojpeg on this system, so Pillow encodes\n")

    def run(backend: str, encoder: str, together: tuple[int, ...] | None, folder: Path) -> int:
        tar.extract_tiles_to_tar(
            _hs2p_result(job, backend),
            folder,
            jpeg_quality=job.quality,
            jpeg_backend=encoder,
            # None: squares of 8, 4 and 2 patches are read at once; (): every patch by itself.
            supertile_sizes=together,
            num_workers=1,
        )
        return len(job.positions)

    return {
        f"{backend}, {encoder}, {'squares' if together is None else 'single'}": partial(run, backend, encoder, together)
        for backend in backends
        for encoder in encoders[:1]
        for together in (None, ())
    }


def _hs2p_result(job: Job, backend: str) -> Any:
    result: Any = importlib.import_module("hs2p.tiling.result")
    corners = np.array(job.positions, dtype=np.int64)
    tiles = result.TileGeometry(
        x=corners[:, 0],
        y=corners[:, 1],
        tissue_fractions=np.ones(len(corners), dtype=np.float32),
        requested_tile_size_px=job.size_px,
        requested_spacing_um=job.mpp * job.reduction,
        read_level=0,
        read_tile_size_px=job.read_px,
        read_spacing_um=job.mpp,
        tile_size_lv0=job.read_px,
        is_within_tolerance=job.reduction == 1,
        base_spacing_um=job.mpp,
        slide_dimensions=[job.width_px, job.height_px],
        level_downsamples=[1.0],
        overlap=0.0,
        min_tissue_fraction=0.0,
    )
    return result.TilingResult(
        tiles=tiles,
        sample_id="slide",
        image_path=job.slide,
        backend=backend,
        requested_backend=backend,
        tolerance=0.05,
        step_px_lv0=job.read_px,
        tissue_method="precomputed_mask",
        requested_seg_downsample=16,
        seg_downsample=16,
        seg_level=0,
        seg_spacing_um=job.mpp,
        seg_sthresh=None,
        seg_sthresh_up=None,
        seg_mthresh=None,
        seg_close=None,
        ref_tile_size_px=job.size_px,
        a_t=0,
        a_h=0,
        filter_white=False,
        filter_black=False,
        white_threshold=220,
        black_threshold=25,
        fraction_threshold=0.9,
    )


def tiatoolbox(job: Job) -> dict[str, Way]:
    """Its extractor of patches at given points, its Macenko normalisation of every patch, Pillow's JPEG."""
    extraction: Any = importlib.import_module("tiatoolbox.tools.patchextraction")
    reading: Any = importlib.import_module("tiatoolbox.wsicore.wsireader")
    normalizer = importlib.import_module("tiatoolbox.tools.stainnorm").MacenkoNormalizer()
    data: Any = importlib.import_module("tiatoolbox.data")
    normalizer.fit(data.stain_norm_target())

    def patches() -> Iterator[Patch]:
        # Its own choice for a generic TIFF would decode the whole slide into memory first.
        reader = reading.OpenSlideWSIReader(job.slide, mpp=(job.mpp, job.mpp))
        # Points are centres, at the resolution of the patches; halves are rounded as it rounds them.
        centres = np.array(job.positions) // job.reduction + (job.size_px - 1) // 2
        yield from extraction.get_patch_extractor(
            "point",
            input_img=reader,
            locations_list=centres,
            patch_size=(job.size_px, job.size_px),
            resolution=job.mpp * job.reduction,
            units="mpp",
        )

    def transform(patch: Patch) -> Patch:
        made: Patch = normalizer.transform(patch[..., :3].copy())
        return made

    return {
        "points, Macenko": lambda folder: to_tar(patches(), transform, job.quality, folder),
        "points alone": lambda folder: to_tar(patches(), lambda patch: patch[..., :3], job.quality, folder),
    }


def openslide(job: Job) -> dict[str, Way]:
    """The loop that many write: OpenSlide reads, torchstain (torch) normalises every patch, Pillow encodes."""
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(1)
    normalizer = importlib.import_module("torchstain").normalizers.MacenkoNormalizer(backend="torch")

    def transform(patch: Patch) -> Patch:
        tensor = torch.from_numpy(np.ascontiguousarray(patch.transpose(2, 0, 1)))
        made, *_ = normalizer.normalize(I=tensor, stains=False)
        levels: Patch = made.numpy().astype(np.uint8)
        return levels

    return {
        "torchstain": lambda folder: to_tar(openslide_patches(job), transform, job.quality, folder),
        "no normalisation": lambda folder: to_tar(openslide_patches(job), lambda patch: patch, job.quality, folder),
    }


def openslide_patches(job: Job) -> Iterator[Patch]:
    """Patches as OpenSlide reads them and Pillow reduces them."""
    library: Any = importlib.import_module("openslide")
    with library.OpenSlide(job.slide) as slide:
        for x, y in job.positions:
            image = slide.read_region((x, y), 0, (job.read_px, job.read_px)).convert("RGB")
            yield np.asarray(image.reduce(job.reduction) if job.reduction > 1 else image)


TOOLS = {"hs2p": hs2p, "tiatoolbox": tiatoolbox, "openslide": openslide}
FOR_COMPARISON = ("points alone", "no normalisation")
"""Ways that leave out what the tool is measured for."""
NEEDED = {"hs2p": ("hs2p",), "tiatoolbox": ("tiatoolbox",), "openslide": ("openslide", "torchstain", "torch")}
ABSENT = 3
"""Exit code where this Python has not the tool."""
PACKAGES = {"hs2p": "hs2p", "tiatoolbox": "tiatoolbox", "openslide": "openslide-python"}


def to_tar(patches: Iterator[Patch], transform: Callable[[Patch], Patch], quality: int, folder: Path) -> int:
    """Transform patches and write them as JPEG to a tar in the folder; gives their number."""
    image: Any = importlib.import_module("PIL.Image")
    failed = (RuntimeError, IndexError, ValueError, np.linalg.LinAlgError)
    count = 0
    with tarfile.open(folder / "patches.tar", "w") as tar:
        for number, patch in enumerate(patches):
            try:
                made = transform(patch)
            except failed:  # a patch without enough stain to fit stays as it was
                made = patch[..., :3]
            buffer = io.BytesIO()
            image.fromarray(made).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
            entry = tarfile.TarInfo(f"{number:06d}.jpg")
            entry.size = buffer.tell()
            buffer.seek(0)
            tar.addfile(entry, buffer)
            count += 1
    return count


def _imported(module: str) -> bool:
    try:
        importlib.import_module(module)
    except (ImportError, OSError):
        return False
    return True


def spent_ms() -> float:
    """CPU time so far, of this process with its threads and of the processes it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used) * 1000


def per_patch_ms(way: Way, runs: int) -> float:
    """Median CPU time per patch, after one run that does not count."""
    times = []
    for number in range(runs + 1):
        with tempfile.TemporaryDirectory() as folder:
            before = spent_ms()
            count = way(Path(folder))
            if number:
                times.append((spent_ms() - before) / count)
    return statistics.median(times)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tool", choices=sorted(TOOLS))
    parser.add_argument("job", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="also write each way's tar into a folder of its name there")
    arguments = parser.parse_args()
    if not all(_imported(module) for module in NEEDED[arguments.tool]):
        sys.exit(ABSENT)
    job = Job(**json.loads(arguments.job.read_text()))
    ways = TOOLS[arguments.tool](job)
    measured = {name: per_patch_ms(way, arguments.runs) for name, way in ways.items()}
    if arguments.keep is not None:
        for name, way in ways.items():
            folder = arguments.keep / name.replace(", ", "-").replace(" ", "-")
            folder.mkdir(parents=True, exist_ok=True)
            way(folder)
    version = importlib.metadata.version(PACKAGES[arguments.tool])
    found = {
        "ways": measured,
        "for_comparison": [name for name in ways if name in FOR_COMPARISON],
        "patches": len(job.positions),
        "version": version,
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
