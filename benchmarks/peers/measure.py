"""One other tool's Macenko normalisation, run by the Python that has it: CPU time, its pictures, or its vectors.

    python measure.py TOOL patches.npy --runs 5          prints {"fit_apply_ms": …, "apply_ms": …}
    python measure.py TOOL images.npz --output out.npz   writes its pictures of the images it can process
    python measure.py TOOL folder --vectors              prints {"name": [haematoxylin, eosin]} of the folder's *.npy

The last two know torchstain and TIAToolbox, and give both the same reference.

`apply_ms` is there for tools that can be given the stain matrix of a source; they all find the percentiles of the
concentrations anew even then. Tools that take batches are measured with 1 and with 8 patches; the better one counts.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Patches = NDArray[np.uint8]
Work = Callable[[], object]

REFERENCE = [[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]]
REFERENCE_MAXIMA = [1.9705, 1.0308]
"""Macenko's: rows red, green, blue; columns haematoxylin, eosin; and their largest concentrations."""


def torchstain(patches: Patches) -> dict[str, list[Work]]:
    """Fits every patch; takes one at a time."""
    tensors = channels_first(patches)
    normalizer = importlib.import_module("torchstain").normalizers.MacenkoNormalizer(backend="torch")
    return {"fit_apply_ms": [lambda: [normalizer.normalize(I=tensor, stains=False) for tensor in tensors]]}


def torch_staintools(patches: Patches) -> dict[str, list[Work]]:
    """Takes batches; can keep the stain matrices of patches it has seen."""
    torch: Any = importlib.import_module("torch")
    build = importlib.import_module("torch_staintools.normalizer").NormalizerBuilder.build
    scaled = channels_first(patches).to(torch.float32) / 255
    fresh, keeping = (build("macenko", concentration_solver="qr", use_cache=cached) for cached in (False, True))
    for normalizer in (fresh, keeping):
        normalizer.fit(scaled[:1])
    keys = [str(number) for number in range(len(patches))]

    def run(normalizer: Any, size: int, *, cached: bool) -> None:
        for start in range(0, len(patches), size):
            some = slice(start, start + size)
            normalizer.transform(scaled[some], cache_keys=keys[some] if cached else None)

    return {
        "fit_apply_ms": [partial(run, fresh, size, cached=False) for size in (1, 8)],
        "apply_ms": [partial(run, keeping, size, cached=True) for size in (1, 8)],
    }


def stainx(patches: Patches) -> dict[str, list[Work]]:
    """Takes batches; fits every patch of them."""
    normalizer = importlib.import_module("stainx").Macenko(device="cpu", backend="torch")
    tensors = channels_first(patches)
    normalizer.fit(tensors[:1])

    def run(size: int) -> None:
        for start in range(0, len(patches), size):
            normalizer.transform(tensors[start : start + size])

    return {"fit_apply_ms": [partial(run, size) for size in (1, 8)]}


def tiatoolbox(patches: Patches) -> dict[str, list[Work]]:
    """Takes one at a time; another class takes a stain matrix."""
    stainnorm = importlib.import_module("tiatoolbox.tools.stainnorm")
    fresh = stainnorm.MacenkoNormalizer()
    fresh.fit(patches[0])
    given = stainnorm.CustomNormalizer(fresh.stain_matrix_target)
    given.fit(patches[0])
    return {
        "fit_apply_ms": [lambda: [fresh.transform(patch.copy()) for patch in patches]],
        "apply_ms": [lambda: [given.transform(patch.copy()) for patch in patches]],
    }


TOOLS = {
    "torchstain": torchstain,
    "torch_staintools": torch_staintools,
    "stainx": stainx,
    "tiatoolbox": tiatoolbox,
}


def channels_first(patches: Patches) -> Any:
    """A uint8 tensor N×3×H×W."""
    torch: Any = importlib.import_module("torch")
    return torch.from_numpy(np.ascontiguousarray(patches.transpose(0, 3, 1, 2)))


def cpu_ms(work: Work, runs: int) -> float:
    """Median CPU time of this process, all threads together."""
    for _ in range(2):
        work()
    times = []
    for _ in range(runs):
        start = time.process_time_ns()
        work()
        times.append((time.process_time_ns() - start) / 1e6)
    return statistics.median(times)


class TorchstainMethod:
    """torchstain with its built-in target, in float32 as it does or in float64."""

    def __init__(self, *, double: bool) -> None:
        torch: Any = importlib.import_module("torch")
        self._kind = torch.float64 if double else torch.float32
        self._build = importlib.import_module("torchstain").normalizers.MacenkoNormalizer
        if double:
            torch.Tensor.float = torch.Tensor.double  # it converts to float32 by name

    def picture(self, image: Patches) -> Patches | None:
        """An H×W×3 image normalised, or None where it cannot be."""
        torch: Any = importlib.import_module("torch")
        normalizer = self._build(backend="torch")
        normalizer.HERef = torch.tensor(REFERENCE, dtype=self._kind)
        normalizer.maxCRef = torch.tensor(REFERENCE_MAXIMA, dtype=self._kind)
        try:
            made, *_ = normalizer.normalize(I=channels_first(image[None])[0], stains=False)
        except (RuntimeError, IndexError):  # what torch raises where no pixel is left to work on
            return None
        levels = np.asarray(made)
        return levels.astype(np.uint8) if levels.min() >= 0 else None  # NaN becomes a negative integer

    def vectors(self, image: Patches) -> list[list[float]]:
        """Haematoxylin and eosin of an H×W×3 image."""
        normalizer = self._build(backend="torch")
        normalizer.fit(channels_first(image[None])[0])
        stains: list[list[float]] = np.asarray(normalizer.HERef).T.tolist()
        return stains


class TiatoolboxMethod:
    """TIAToolbox, its target set to the same reference that the others have."""

    def __init__(self) -> None:
        self._normalizer = importlib.import_module("tiatoolbox.tools.stainnorm").MacenkoNormalizer()
        self._normalizer.stain_matrix_target = np.array(REFERENCE).T
        self._normalizer.maxC_target = np.array([REFERENCE_MAXIMA])

    def picture(self, image: Patches) -> Patches | None:
        """An H×W×3 image normalised, or None where it cannot be."""
        try:
            made: Patches = self._normalizer.transform(image.copy())
        except (ValueError, np.linalg.LinAlgError):  # no tissue, or a covariance with NaN
            return None
        return made

    def vectors(self, image: Patches) -> list[list[float]]:
        """Haematoxylin and eosin of an H×W×3 image."""
        stains: list[list[float]] = self._normalizer.extractor.get_stain_matrix(image).tolist()
        return stains


METHODS: dict[str, Callable[[], TorchstainMethod | TiatoolboxMethod]] = {
    "torchstain": partial(TorchstainMethod, double=False),
    "tiatoolbox": TiatoolboxMethod,
}


def pictures(
    method: TorchstainMethod | TiatoolboxMethod, images: Mapping[str, Patches], rows: int | None
) -> dict[str, Patches]:
    """What a tool makes of images; with `rows` each piece of so many rows is normalised as a picture of its own.

    An image that cannot be processed is left out, a piece that cannot be stays as it was.
    """
    made: dict[str, Patches] = {}
    for name in images:
        image = images[name]
        if rows is not None:
            pieces = [image[start : start + rows] for start in range(0, len(image), rows)]
            done = [(piece, method.picture(piece)) for piece in pieces]
            made[name] = np.concatenate([piece if picture is None else picture for piece, picture in done])
        elif (picture := method.picture(image)) is not None:
            made[name] = picture
    return made


def main() -> None:
    """Measure, or write pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tool", choices=sorted(TOOLS))
    parser.add_argument("patches")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--output", help="write the tool's pictures of the images of an .npz there")
    parser.add_argument("--rows", type=int, help="with --output: pieces of so many rows are pictures of their own")
    parser.add_argument("--double", action="store_true", help="torchstain in float64")
    parser.add_argument("--vectors", action="store_true", help="print the stain vectors of each .npy of a folder")
    arguments = parser.parse_args()
    if arguments.tool != "tiatoolbox":
        importlib.import_module("torch").set_num_threads(1)
    if arguments.output or arguments.vectors:
        method = TorchstainMethod(double=True) if arguments.double else METHODS[arguments.tool]()
        if arguments.vectors:
            files = sorted(Path(arguments.patches).glob("*.npy"))
            vectors = {file.stem: method.vectors(np.load(file)) for file in files}
            sys.stdout.write(json.dumps(vectors) + "\n")
            return
        with np.load(arguments.patches) as images:
            made: dict[str, Any] = dict(pictures(method, images, arguments.rows))
        np.savez(arguments.output, **made)
        return
    patches = np.load(arguments.patches)
    figures = {
        name: min(cpu_ms(work, arguments.runs) for work in ways) / len(patches)
        for name, ways in TOOLS[arguments.tool](patches).items()
    }
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
