"""The spool gives back what was put in, by the number a sample has in its slide's plan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exaone_prep.spool import SPOOL_COLUMNS, Spool, SpoolReader

Samples = dict[int, tuple[bytes, tuple[float, float, float, float], int]]

fractions = st.floats(0, 1, width=32)
samples = st.dictionaries(
    st.integers(0, 49),
    st.tuples(st.binary(max_size=300), st.tuples(fractions, fractions, fractions, fractions), st.integers(0, 3)),
    max_size=50,
)


def new_spool(path: Path, planned: int = 100) -> Spool:
    """An empty spool of a slide whose planned patch n lies at (10 n, 10 n + 1) and has tissue on n / 1000 of it."""
    numbers = np.arange(planned)
    return Spool(path, np.stack([10 * numbers, 10 * numbers + 1], axis=1), numbers / 1000)


@given(samples)
def test_every_kept_sample_comes_back_and_every_other_is_known_to_be_dropped(
    tmp_path_factory: pytest.TempPathFactory, kept: Samples
) -> None:
    path = tmp_path_factory.mktemp("spool") / "slide-0000.spool"
    with new_spool(path) as spool:
        for number, (data, measures, status) in kept.items():
            spool.add(data, (number, *measures, status))
    reader = SpoolReader(path, 50)
    try:
        rows = reader.rows(np.arange(50, dtype=np.int32)).tolist()
        assert [number for number, row in enumerate(rows) if row >= 0] == sorted(kept)
        for number, (data, measures, status) in kept.items():
            record = reader.records[rows[number]]
            assert reader.read(int(record["offset"]), int(record["size"])) == data
            assert [record[name] for name in ("white", "black", "pen", "sharpness")] == list(measures)
            assert (record["sample"], record["status"], record["size"]) == (number, status, len(data))
            assert (record["x"], record["y"], record["fraction"]) == (10 * number, 10 * number + 1, number / 1000)
    finally:
        reader.close()
    assert path.stat().st_size == sum(len(data) for data, _, _ in kept.values())


def test_samples_are_read_in_any_order(tmp_path: Path) -> None:
    with new_spool(tmp_path / "a.spool") as spool:
        for number in range(100):
            spool.add(b"%d " % number * number, (number, 0, 0, 0, 1, 0))
    reader = SpoolReader(tmp_path / "a.spool", 100)
    order = np.random.default_rng(0).permutation(100).astype(np.int32)
    for number, record in zip(order.tolist(), reader.records[reader.rows(order)], strict=True):
        assert reader.read(int(record["offset"]), int(record["size"])) == b"%d " % number * number
    reader.close()


def test_a_spool_beyond_two_gigabytes_has_the_offsets_for_it() -> None:
    """A slide of 30,000 patches of PNG is 4 GB."""
    assert SPOOL_COLUMNS["offset"].itemsize == 8


def test_what_another_attempt_left_is_never_appended_to(tmp_path: Path) -> None:
    with new_spool(tmp_path / "a.spool") as spool:
        spool.add(b"first", (0, 0, 0, 0, 1, 0))
    with pytest.raises(FileExistsError):
        new_spool(tmp_path / "a.spool")


def test_a_slide_that_fails_half_way_leaves_no_table(tmp_path: Path) -> None:
    """So that half of a slide can never be taken for the whole."""

    def cut() -> None:
        with new_spool(tmp_path / "a.spool") as spool:
            spool.add(b"first", (0, 0, 0, 0, 1, 0))
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        cut()
    with pytest.raises(FileNotFoundError):
        SpoolReader(tmp_path / "a.spool", 1)
