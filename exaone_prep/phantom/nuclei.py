"""A library of pre-rendered nuclei and red cells; a slide is stamped with them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from exaone_prep.phantom.noise import Field, generator, soft, unit_vector

Kind = Literal["lymphocyte", "plump", "columnar", "spindle", "erythrocyte"]
KINDS: tuple[Kind, ...] = ("lymphocyte", "plump", "columnar", "spindle", "erythrocyte")
DIRECTIONS = 16
"""Directions of long nuclei, over half a turn."""


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """Half axes in µm, and how chromatin lies in the nucleus (haematoxylin concentrations)."""

    long_um: tuple[float, float]
    slender: tuple[float, float]
    body: tuple[float, float]
    rim: float
    clumps: float
    nucleoli: int
    wobble: float
    variants: int


_SHAPES: dict[Kind, _Shape] = {
    "lymphocyte": _Shape(
        long_um=(2.7, 4.3),
        slender=(0.72, 1.0),
        body=(1.2, 2.1),
        rim=0.15,
        clumps=1.2,
        nucleoli=0,
        wobble=0.15,
        variants=16,
    ),
    "plump": _Shape(
        long_um=(3.4, 6.9),
        slender=(0.55, 0.97),
        body=(0.75, 1.5),
        rim=0.3,
        clumps=1.0,
        nucleoli=2,
        wobble=0.2,
        variants=20,
    ),
    "columnar": _Shape(
        long_um=(4.2, 6.2),
        slender=(0.45, 0.68),
        body=(0.95, 1.6),
        rim=0.2,
        clumps=0.8,
        nucleoli=1,
        wobble=0.10,
        variants=12,
    ),
    "spindle": _Shape(
        long_um=(3.6, 8.5),
        slender=(0.15, 0.34),
        body=(1.0, 1.9),
        rim=0.1,
        clumps=0.7,
        nucleoli=0,
        wobble=0.16,
        variants=14,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Library:
    """Sprites; those of kind k, variant i and direction d lie at `first[k] + i * DIRECTIONS + d`.

    Attributes:
        sprites: Each float32, 2×s×s: how much of the pixel the nucleus covers (0-1), and haematoxylin times that.
            A red cell has its thickness in both.
        first: Per kind, the number of its first sprite.
        variants: Per kind, how many variants there are.
        reach_px: Half the side of the largest sprite.
    """

    sprites: tuple[Field, ...]
    first: dict[Kind, int]
    variants: dict[Kind, int]
    reach_px: int


@lru_cache(maxsize=2)
def library(seed: int, mpp: float) -> Library:
    """Render the nuclei for slides of one resolution (µm per pixel)."""
    sprites: list[Field] = []
    first: dict[Kind, int] = {}
    variants: dict[Kind, int] = {}
    for number, kind in enumerate(KINDS):
        rng = generator(seed, 2, number)
        first[kind] = len(sprites)
        variants[kind] = 3 if kind == "erythrocyte" else _SHAPES[kind].variants
        for _ in range(variants[kind]):
            if kind == "erythrocyte":
                radius_um = 3.0 + float(rng.random()) * 0.7
                sprites += [_erythrocyte(rng, radius_um, mpp) for _ in range(DIRECTIONS)]
            else:
                sprites += _nucleus(rng, _SHAPES[kind], mpp)
    return Library(
        sprites=tuple(sprites),
        first=first,
        variants=variants,
        reach_px=max(sprite.shape[1] for sprite in sprites) // 2 + 1,
    )


def _between(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    return limits[0] + float(rng.random()) * (limits[1] - limits[0])


def _coordinates(half_px: int) -> tuple[Field, Field]:
    axis = np.arange(-half_px, half_px + 1, dtype=np.float32)
    return np.repeat(axis[:, None], axis.size, 1), np.repeat(axis[None], axis.size, 0)


def _nucleus(rng: np.random.Generator, shape: _Shape, mpp: float) -> list[Field]:
    """One nucleus in every direction; chromatin and outline differ, size and staining do not."""
    long_px = _between(rng, shape.long_um) / mpp
    short_px = max(long_px * _between(rng, shape.slender), 0.9 / mpp)
    body = _between(rng, shape.body)
    bend = (_between(rng, (-0.35, 0.35)) if shape.slender[1] < 0.5 else 0.0) / long_px
    half_px = int(long_px * 1.25) + 3
    rows, columns = _coordinates(half_px)
    clump_px = max(int(1.3 / mpp / 2) * 2 + 1, 1)
    found = []
    for direction in range(DIRECTIONS):
        cosine, sine = unit_vector(direction / DIRECTIONS / 2)
        along = columns * np.float32(cosine) + rows * np.float32(sine)
        across = rows * np.float32(cosine) - columns * np.float32(sine)
        across = across + (along * along) * np.float32(bend / 2)
        noise = rng.random(rows.shape, np.float32) - np.float32(0.5)
        lobe_px = max(int(long_px * 0.8), 3)
        outline = soft(noise, lobe_px) * np.float32(lobe_px * 2.6 * shape.wobble)
        radius = np.sqrt((along / np.float32(long_px)) ** 2 + (across / np.float32(short_px)) ** 2) + outline
        inside_px = (1 - radius) * np.float32(short_px)
        cover = np.clip(inside_px * np.float32(1.1 * mpp) + np.float32(0.5), 0, 1)
        chromatin = np.float32(body) + np.float32(shape.clumps) * soft(noise, clump_px) * np.float32(clump_px * 1.6)
        rim_px = np.float32(0.8 / mpp)
        chromatin += np.float32(shape.rim) * np.clip(1 - np.abs(inside_px - rim_px * 0.7) / rim_px, 0, 1)
        for _ in range(int(rng.integers(0, shape.nucleoli + 1))):
            here = _between(rng, (-0.45, 0.45)) * long_px, _between(rng, (-0.45, 0.45)) * short_px
            squared = (along - np.float32(here[0])) ** 2 + (across - np.float32(here[1])) ** 2
            chromatin += np.float32(0.9) * np.clip(1.4 - squared * np.float32((mpp / 0.9) ** 2), 0, 1)
        layers = np.stack([cover, cover * np.clip(chromatin, 0.2, 2.8)])
        if rng.random() < 0.4:  # a little above or below the focal plane
            layers = np.stack([soft(layer, max(round(1.1 / mpp), 1)) for layer in layers])
        found.append(layers)
    return found


def _erythrocyte(rng: np.random.Generator, radius_um: float, mpp: float) -> Field:
    radius_px = radius_um / mpp
    rows, columns = _coordinates(int(radius_px) + 3)
    squash = np.float32(_between(rng, (0.75, 1.3)))
    skew = np.float32(_between(rng, (-0.3, 0.3)))
    distance = np.sqrt(rows * rows * squash + columns * columns / squash + skew * rows * columns) / np.float32(
        radius_px
    )
    cover = np.clip((1 - distance) * np.float32(radius_px * 0.8) + np.float32(0.5), 0, 1)
    thickness = cover * (np.float32(0.72) + np.float32(0.28) * np.clip(distance * distance * 1.5, 0, 1))
    return np.stack([thickness, thickness])
