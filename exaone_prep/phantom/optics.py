"""From stain concentrations to the grey levels a scanner records, and the stain directions that are true for it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exaone_prep.phantom.noise import Field, Textures, generator, soft

_STEPS_PER_OD = 512
_MAX_OD = 8
_STEP_TRANSMISSION = 0.9980487811074755  # exp(-1/512)

_STAINS: tuple[tuple[tuple[float, float, float], tuple[float, float, float]], ...] = (
    ((0.60, 0.71, 0.37), (0.22, 0.87, 0.44)),
    ((0.65, 0.69, 0.32), (0.21, 0.91, 0.36)),
    ((0.52, 0.75, 0.41), (0.25, 0.83, 0.50)),
    ((0.64, 0.70, 0.32), (0.19, 0.89, 0.41)),
    ((0.62, 0.71, 0.34), (0.30, 0.86, 0.41)),
    ((0.57, 0.76, 0.32), (0.15, 0.92, 0.36)),
)
"""OD of haematoxylin and eosin in red, green and blue; 17-31 degrees apart, as on real slides."""


@dataclass(frozen=True, kw_only=True)
class Stains:
    """How a laboratory stains.

    Attributes:
        haematoxylin: Unit OD vector in linear light, before any scanner.
        eosin: The same for eosin.
        haematoxylin_scale: Concentration of haematoxylin against the common standard.
        eosin_scale: The same for eosin.
    """

    haematoxylin: tuple[float, float, float]
    eosin: tuple[float, float, float]
    haematoxylin_scale: float
    eosin_scale: float


@dataclass(frozen=True, kw_only=True)
class Scanner:
    """What a scanner does to the light.

    Attributes:
        name: For the tables.
        glass: Grey levels of empty glass.
        crosstalk: Share of the light of one colour that is recorded in its neighbours.
        tone: Curvature of the response per channel; 0 is linear.
        blur: Weight of each direct neighbour in the point spread.
        sharpen: Weight of the scanner's own sharpening.
        noise: Standard deviation in grey levels.
        jpeg_quality: 1-100.
    """

    name: str
    glass: tuple[float, float, float]
    crosstalk: float
    tone: tuple[float, float, float]
    blur: float
    sharpen: float
    noise: float
    jpeg_quality: int


def stains_of(lab: int, seed: int) -> Stains:
    """The known stains of a laboratory; the first six are set, the others are variations of them."""
    rng = generator(seed, 3, lab)
    pair = _STAINS[lab % len(_STAINS)]
    jitter = 0.0 if lab < len(_STAINS) else 0.03
    vectors = [_unit([value + jitter * (2 * float(rng.random()) - 1) for value in vector]) for vector in pair]
    return Stains(
        haematoxylin=vectors[0],
        eosin=vectors[1],
        haematoxylin_scale=0.8 + 0.45 * float(rng.random()),
        eosin_scale=1.0 + 0.4 * float(rng.random()),
    )


def scanner_of(lab: int, seed: int) -> Scanner:
    """The scanner of a laboratory."""
    rng = generator(seed, 4, lab)
    red, green, blue, bend, tint = (float(value) for value in rng.random(5))
    bend, tint = 0.10 * bend - 0.05, 0.06 * tint - 0.03
    return Scanner(
        name=f"scanner-{lab}",
        glass=(238 + 4 * red, 238.5 + 3 * green, 238 + 4 * blue),
        crosstalk=0.004 + 0.02 * float(rng.random()),
        tone=(bend, bend + tint, bend - tint),
        blur=0.05 + 0.13 * float(rng.random()),
        sharpen=(0.0, 0.25, 0.5)[lab % 3],
        noise=0.7 + 1.1 * float(rng.random()),
        jpeg_quality=(80, 90, 70, 85)[lab % 4],
    )


def _unit(vector: list[float]) -> tuple[float, float, float]:
    red, green, blue = vector
    length = math.sqrt(red * red + green * green + blue * blue)
    return (red / length, green / length, blue / length)


def transmission_table() -> Field:
    """exp(-OD) for OD = 0, 1/512, ... 8, by repeated multiplication: the same bits on every CPU."""
    table = [1.0]
    for _ in range(_STEPS_PER_OD * _MAX_OD):
        table.append(table[-1] * _STEP_TRANSMISSION)
    return np.array(table).astype(np.float32)


_TRANSMISSION = transmission_table()


def respond(od: list[Field], scanner: Scanner) -> list[Field]:
    """Grey levels (float32, 0-255, not rounded) of the three channels for OD in linear light, without blur or noise."""
    own = np.float32(1 - 2 * scanner.crosstalk)
    other = np.float32(scanner.crosstalk)
    light = []
    for channel in od:
        steps = (channel * np.float32(_STEPS_PER_OD) + np.float32(0.5)).astype(np.int32)
        light.append(_TRANSMISSION.take(steps, mode="clip"))
    total = light[0] + light[1]
    total += light[2]
    levels = []
    for channel, glass, tone in zip(light, scanner.glass, scanner.tone, strict=True):
        mixed = channel * (own - other)
        mixed += total * other
        bent = (1 - mixed) * np.float32(tone)
        bent += 1
        mixed *= bent
        mixed *= np.float32(glass)
        levels.append(mixed)
    return levels


def spread(level: Field, scanner: Scanner) -> Field:
    """Point spread and sharpening of one channel; the outermost three pixels are not right and belong to the halo."""
    first = _neighbours(level, np.float32(scanner.blur))
    if scanner.sharpen == 0:
        return first
    second = _neighbours(first, np.float32(0.25))
    return first + (first - second) * np.float32(scanner.sharpen)


def _neighbours(level: Field, weight: np.float32) -> Field:
    result = level
    for axis in (0, 1):
        other = result[:-2] + result[2:] if axis == 0 else result[:, :-2] + result[:, 2:]
        other *= weight
        inner = result.copy()
        core = inner[1:-1] if axis == 0 else inner[:, 1:-1]
        core *= 1 - 2 * weight
        core += other
        result = inner
    return result


def defocus(level: Field, amount: Field, radius_px: int) -> Field:
    """Blend one channel into its strongly blurred self; `amount` is 0-1 per pixel."""
    blurred = soft(level, 2 * (radius_px // 3) + 1)
    return level + (blurred - level) * amount


def record(level: Field, textures: Textures, scanner: Scanner, offset: tuple[int, int]) -> NDArray[np.uint8]:
    """Add the sensor's noise and round to grey levels (uint8)."""
    side = textures.noise.shape[0]
    rows = (np.arange(level.shape[0]) + offset[0]) & (side - 1)
    columns = (np.arange(level.shape[1]) + offset[1]) & (side - 1)
    noisy: Field = textures.noise[rows[:, None], columns]
    noisy *= np.float32(scanner.noise)
    noisy += level
    noisy += np.float32(0.5)
    np.clip(noisy, 0, 255, out=noisy)
    return noisy.astype(np.uint8)


def true_direction(
    stain: tuple[float, float, float], concentrations: list[float], scanner: Scanner
) -> tuple[float, float, float]:
    """Direction of the mean OD that the scanner records for pixels of one stain alone.

    Args:
        stain: Unit OD vector in linear light.
        concentrations: Of typical pure pixels.
        scanner: Whose recording it is.

    Returns:
        Unit vector of the mean of OD = -ln((I+1)/240) over these pixels (red, green, blue).
    """
    values = np.array(concentrations, dtype=np.float32)
    levels = respond([values * np.float32(part) for part in stain], scanner)
    sums = [math.fsum(-math.log((float(level) + 1) / 240) for level in channel) for channel in levels]
    return _unit(sums)
