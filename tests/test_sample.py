"""A sample's JSON: the quick way of writing it gives the bytes of the definition."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from exaone_prep.shards.sample import STAIN_STATUSES, SampleText, sample_json

texts = st.text(max_size=30)
pixels = st.integers(-(2**31), 2**31)


@given(
    slide_id=texts,
    cohort=texts,
    level=st.integers(0, 20),
    mpp=st.floats(0.01, 100),
    tissue_fraction=st.floats(0, 1).map(lambda share: round(share, 4)),
    x_px=pixels,
    y_px=pixels,
    stain_status=st.sampled_from(STAIN_STATUSES),
)
def test_the_text_of_a_slides_samples_is_that_of_json(**fields: object) -> None:
    shared = {name: fields[name] for name in ("slide_id", "cohort", "level", "mpp")}
    own = {name: value for name, value in fields.items() if name not in shared}
    text = SampleText(**shared).of(**own)  # type: ignore[arg-type]
    assert text == sample_json(**fields)  # type: ignore[arg-type]
    read = json.loads(text)
    assert list(read) == sorted(read)
    assert (read["slide_id"], read["mpp"], read["x"]) == (fields["slide_id"], fields["mpp"], fields["x_px"])
