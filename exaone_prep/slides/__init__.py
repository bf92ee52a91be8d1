"""Whole-slide images: opening, what they say about themselves, µm per pixel, levels, and reading regions."""

from exaone_prep.slides.level import LevelChoice, choose_level
from exaone_prep.slides.mpp import ClaimedMpp, Mpp, MppSource, resolve_mpp
from exaone_prep.slides.open import open_slide
from exaone_prep.slides.reader import Level, SlideInfo, SlideReader, UnreadableRegionError

__all__ = [
    "ClaimedMpp",
    "Level",
    "LevelChoice",
    "Mpp",
    "MppSource",
    "SlideInfo",
    "SlideReader",
    "UnreadableRegionError",
    "choose_level",
    "open_slide",
    "resolve_mpp",
]
