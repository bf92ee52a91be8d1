"""The published table: top-1 of linear evaluation on the six tasks, as EXAONEPath's README gives it.

Figures are copied from the table "Model Performance Comparison" of the README of LG-AI-EXAONE/EXAONEPath (arXiv
2408.00380), which takes those of other models but GigaPath from the RudolfV paper (arXiv 2401.04079). Parameters and
numbers of slides are not in that table; `docs/probe.md` says where each is from.
"""

from __future__ import annotations

from dataclasses import dataclass

TASKS = ("pcam", "mhist", "crc100k", "til", "msi_crc", "msi_stad")
TITLES = ("PCAM", "MHIST", "CRC-100K", "TIL Det.", "MSI CRC", "MSI STAD")


@dataclass(frozen=True, kw_only=True)
class Published:
    """A row of the table.

    Attributes:
        name: Of the encoder.
        top1: On the six tasks in their order; None where the table has a dash.
        mean: As the table gives it, or None.
        parameters_m: In millions, or None where no source was found.
        slides: It was trained on, or None for encoders not trained on slides.
    """

    name: str
    top1: tuple[float | None, ...]
    mean: float | None
    parameters_m: float | None = None
    slides: int | None = None


TABLE = (
    Published(name="ResNet50 ImageNet", top1=(0.833, 0.806, 0.849, 0.915, 0.653, 0.664), mean=0.787),
    Published(name="ViT-L/16 ImageNet", top1=(0.852, 0.796, 0.847, 0.924, 0.669, 0.671), mean=0.793),
    Published(
        name="Lunit",
        top1=(0.918, 0.771, 0.949, 0.943, 0.745, 0.756),
        mean=0.847,
        parameters_m=22,
        slides=21_000,
    ),
    Published(
        name="CTransPath",
        top1=(0.872, 0.817, 0.840, 0.930, 0.694, 0.726),
        mean=0.813,
        parameters_m=28,
        slides=32_220,
    ),
    Published(
        name="Phikon", top1=(0.906, 0.795, 0.883, 0.946, 0.733, 0.751), mean=0.836, parameters_m=86, slides=6_093
    ),
    Published(
        name="Virchow", top1=(0.933, 0.834, 0.968, None, None, None), mean=None, parameters_m=632, slides=1_488_550
    ),
    Published(name="RudolfV", top1=(0.944, 0.821, 0.973, 0.943, 0.755, 0.788), mean=0.871, slides=133_998),
    Published(
        name="GigaPath (patch encoder)",
        top1=(0.947, 0.822, 0.964, 0.938, 0.753, 0.748),
        mean=0.862,
        parameters_m=1_100,
        slides=171_189,
    ),
    Published(
        name="EXAONEPath", top1=(0.901, 0.818, 0.946, 0.939, 0.756, 0.804), mean=0.861, parameters_m=86, slides=34_795
    ),
)
