"""What a group needs of the scratch: estimates hold, and sizes are read as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exaone_prep.codec import encode
from exaone_prep.errors import ManifestError
from exaone_prep.manifest import Codec
from exaone_prep.need import SlideNeed, estimated, in_words, known, need_bytes, parse_bytes
from tests.smallslides import tissue_rgb

SIZES = st.integers(0, 10**12)
NEEDS = st.builds(SlideNeed, staged=SIZES, spool=SIZES, tar=SIZES, pictures=SIZES)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("200GB", 200 * 10**9),
        ("1.5TiB", 3 * 2**39),
        ("500 MB", 500 * 10**6),
        ("64k", 64_000),
        ("10gib", 10 * 2**30),
        ("7B", 7),
        ("1000000", 1_000_000),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1GB", "10 apples", "1e9", "iB", "3iB"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ManifestError, match="200GB"):
        parse_bytes(text)


@given(SIZES)
def test_words_name_the_size_to_three_digits(size: int) -> None:
    assert parse_bytes(in_words(size).replace("bytes", "B")) == pytest.approx(size, rel=0.01)


@pytest.mark.parametrize("quality", [50, 80, 90, 95, 100])
@pytest.mark.parametrize("subsampling", ["420", "444"])
def test_patches_take_no_more_than_estimated(quality: int, subsampling: str) -> None:
    codec = Codec.model_validate({"quality": quality, "subsampling": subsampling})
    rgb = tissue_rgb(3)[256:512]
    took = sum(len(encode(rgb[:, x : x + 256], codec)) for x in range(0, 1024, 256))
    need = estimated(planned=4, size_px=256, codec=codec, staged=0, pictures=0)
    assert took <= need.spool < 4 * took


@given(st.lists(NEEDS, max_size=5), NEEDS)
def test_a_further_slide_never_needs_less_and_what_lies_there_is_counted(
    needs: list[SlideNeed], more: SlideNeed
) -> None:
    assert need_bytes([*needs, more]) >= need_bytes(needs)
    assert need_bytes([more]) >= max(more.staged + more.spool + more.pictures, more.spool + more.tar)


def test_once_a_slide_is_cut_its_copy_is_not_counted() -> None:
    before = SlideNeed(staged=10**9, spool=5000, tar=9000, pictures=10)
    after = known(kept=1, spool=4000, pictures=10)
    assert need_bytes([after]) < 20_000 < need_bytes([before])
