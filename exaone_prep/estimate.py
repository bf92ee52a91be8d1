"""What a build will need, from the survey of a sample of its slides."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from exaone_prep.catalog import CatalogRow
from exaone_prep.catalog.place import is_url
from exaone_prep.cut import CutJob, SlideCut
from exaone_prep.dataset import Dataset
from exaone_prep.errors import PrepError
from exaone_prep.manifest import Manifest
from exaone_prep.plan import plan_group
from exaone_prep.pool import WorkerPool
from exaone_prep.shards.tar import BLOCK_BYTES
from exaone_prep.stain import Reference
from exaone_prep.store_requests import StoreRequests, frame_requests, group_requests
from exaone_prep.survey import SlideSurvey, SurveyJob

_JSON_BYTES: Final = 200
_TAR_OVERHEAD: Final = 2 * BLOCK_BYTES + BLOCK_BYTES + BLOCK_BYTES // 2
"""Two headers, the padded JSON, and half a block of padding behind the image."""


_SCRATCH_PER_BYTE: Final = 2.5
"""Spool and shards of a group lie side by side while it is packed, with the pictures of its slides: 2.3 measured."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a build will need; sums over all slides, extrapolated from those surveyed by file size.

    Attributes:
        slides: In the catalog, duplicates excluded.
        surveyed: Of these.
        usable: Share of the surveyed ones that have patches.
        patches: Planned.
        shards: Tars.
        bytes: Of all shards.
        scratch_bytes: Spool and shards of one group at a time, with the copies of its remote slides.
        staged_bytes: Of all slides that lie in a store, each fetched once.
        cpu_hours: Of survey, cut and pack on this machine's cores.
        requests_per_group: To a store in which the data set lies, and the slides as far as they do.
        requests: Of all groups, and of what is done once.
        reasons: Surveyed slides per quarantine reason.
    """

    slides: int
    surveyed: int
    usable: float
    groups: int
    patches: int
    shards: int
    bytes: int
    scratch_bytes: int
    staged_bytes: int
    cpu_hours: float
    requests_per_group: StoreRequests
    requests: StoreRequests
    reasons: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def estimate(
    dataset: Dataset, locate: Callable[[CatalogRow], Path], *, sample: int, pool: WorkerPool, folder: Path
) -> Estimate:
    """Survey a sample of slides, cut the smallest usable one to learn what a patch costs, and extrapolate.

    Args:
        dataset: Catalog and settings.
        locate: Gives the local path of a slide.
        sample: Slides to survey, spread over the file sizes.
        pool: Does the work.
        folder: Local working space.

    Raises:
        PrepError: No slide of the sample can be used.
    """
    manifest = dataset.manifest
    rows = [row for row in dataset.catalog.rows if row.duplicate_of is None and row.problem is None]
    chosen = _spread_over_sizes(rows, sample)
    jobs = [
        SurveyJob(row=row, path=locate(row), manifest=manifest, file=folder / f"{number}.npz")
        for number, row in enumerate(chosen)
    ]
    began = time.monotonic()
    answers: dict[int, SlideSurvey | PrepError] = dict(pool.map(jobs))
    survey_s = (time.monotonic() - began) * min(pool.workers, len(jobs)) / max(1, len(jobs))
    surveys = {number: answer for number, answer in answers.items() if isinstance(answer, SlideSurvey)}
    usable = [number for number, survey in surveys.items() if survey.problem is None and survey.planned]
    reasons: dict[str, int] = {}
    for answer in answers.values():
        problem = answer.problem if isinstance(answer, SlideSurvey) else answer
        if problem is not None:
            name = str(getattr(problem, "reason", "crashed"))
            reasons[name] = reasons.get(name, 0) + 1
    if not usable:
        raise PrepError(f"None of the {len(chosen)} slides surveyed has patches ({reasons or 'no tissue'}).")
    smallest = min(usable, key=lambda number: surveys[number].planned)
    cut, cut_s = _cut_one(surveys[smallest], jobs[smallest], manifest, dataset.reference, pool, folder)
    planned = sum(surveys[number].planned for number in usable)
    per_byte = planned / max(1, sum(row.size_bytes for row in chosen))
    patches = round(per_byte * sum(row.size_bytes for row in rows))
    each = cut.bytes / max(1, cut.kept) + _TAR_OVERHEAD
    kept_share = cut.kept / surveys[smallest].planned
    groups = max(1, len(dataset.groups))
    group_patches = -(-patches // groups)
    group_shards = max(
        1, plan_group([("", group_patches)], samples_per_shard=manifest.shards.samples_per_shard, seed=0).shards
    )
    group_bytes = group_patches * kept_share * each
    cpu_hours = (len(rows) * survey_s + patches * cut_s / surveys[smallest].planned) / 3600
    remote = [row.size_bytes for row in rows if is_url(dataset.names.uris[row.slide_id])]
    per_group = group_requests(
        shards=group_shards,
        shard_bytes=round(group_bytes / group_shards),
        staged=[sum(remote) / len(remote)] * -(-len(remote) // groups) if remote else [],
        seconds=cpu_hours * 3600 / groups / pool.workers,
    )
    return Estimate(
        slides=len(rows),
        surveyed=len(chosen),
        usable=len(usable) / len(chosen),
        groups=len(dataset.groups),
        patches=patches,
        shards=len(dataset.groups) * group_shards,
        bytes=round(patches * kept_share * each),
        scratch_bytes=round(_SCRATCH_PER_BYTE * group_bytes) + -(-sum(remote) // groups),
        staged_bytes=sum(remote),
        cpu_hours=float(f"{cpu_hours:.3g}"),
        requests_per_group=per_group,
        requests=per_group * groups + frame_requests(groups=groups, remote_slides=len(remote)),
        reasons=dict(sorted(reasons.items())),
    )


def _spread_over_sizes(rows: Sequence[CatalogRow], sample: int) -> list[CatalogRow]:
    ordered = sorted(rows, key=lambda row: (row.size_bytes, row.slide_id))
    count = min(sample, len(ordered))
    return [ordered[(2 * number + 1) * len(ordered) // (2 * count)] for number in range(count)]


def _cut_one(
    survey: SlideSurvey, job: SurveyJob, manifest: Manifest, reference: Reference, pool: WorkerPool, folder: Path
) -> tuple[SlideCut, float]:
    assert survey.choice is not None
    assert survey.fit is not None
    assert survey.reader is not None
    assert survey.pixels is not None
    began = time.monotonic()
    cut = CutJob(
        path=job.path,
        manifest=manifest,
        reference=reference,
        choice=survey.choice,
        reader=survey.reader,
        pixels=survey.pixels,
        fit=survey.fit,
        pictures=job.file,
        spool=folder / "cut.spool",
    )
    answer = next(iter(pool.map([cut])))[1]
    if not isinstance(answer, SlideCut):
        raise answer
    return answer, time.monotonic() - began
