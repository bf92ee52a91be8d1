"""What a sample in a shard looks like: its key and its JSON."""

from __future__ import annotations

import json
from typing import Final, Literal

StainStatus = Literal["fitted", "fallback", "kept", "none"]
STAIN_STATUSES: Final[tuple[StainStatus, ...]] = ("fitted", "fallback", "kept", "none")

EXTENSIONS: Final = {"jpeg": "jpg", "png": "png"}


def sample_key(slide_id: str, x_px: int, y_px: int) -> str:
    """`<slide_id>-<x>-<y>`, level-0 pixels; no dot in it, since readers split names at the first dot."""
    return f"{slide_id}-{x_px}-{y_px}"


def shard_name(group: int, number: int) -> str:
    """File name of a shard."""
    return f"shard-{group:06d}-{number:03d}.tar"


def sample_json(
    *,
    slide_id: str,
    cohort: str,
    x_px: int,
    y_px: int,
    level: int,
    mpp: float,
    tissue_fraction: float,
    stain_status: StainStatus,
) -> bytes:
    """The JSON beside an image: these fields and no others, sorted, without white space."""
    document: dict[str, str | int | float] = {
        "cohort": cohort,
        "level": level,
        "mpp": mpp,
        "slide_id": slide_id,
        "stain_status": stain_status,
        "tissue_fraction": round(tissue_fraction, 4),
        "x": x_px,
        "y": y_px,
    }
    return _text(document).encode("ascii")


class SampleText:
    """`sample_json` for the samples of one slide, several times as fast."""

    def __init__(self, *, slide_id: str, cohort: str, level: int, mpp: float) -> None:
        """Prepare what all samples of a slide share."""
        shared = _text({"cohort": cohort, "level": level, "mpp": mpp, "slide_id": slide_id})
        self._begin = f'{shared[:-1]},"stain_status":"'

    def of(self, *, x_px: int, y_px: int, tissue_fraction: float, stain_status: StainStatus) -> bytes:
        """The JSON of one sample; `tissue_fraction` is rounded to four decimals already."""
        # An int and a finite float are written as JSON writes them.
        text = f'{self._begin}{stain_status}","tissue_fraction":{tissue_fraction!r},"x":{x_px},"y":{y_px}}}'
        return text.encode("ascii")


def _text(document: dict[str, str | int | float]) -> str:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
