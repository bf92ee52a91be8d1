"""Which µm per pixel is believed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exaone_prep.errors import SlideProblemError
from exaone_prep.slides.mpp import ClaimedMpp, ClaimSource, claim, claim_of_ome_xml, claim_of_tiff_tags, resolve_mpp

OME = '<?xml version="1.0"?><OME xmlns="x"><Image ID="Image:0"><Pixels {} SizeX="9"><Channel/></Pixels></Image></OME>'


def said(um_per_px: float, source: ClaimSource = "vendor") -> ClaimedMpp:
    return ClaimedMpp(x_um_per_px=um_per_px, y_um_per_px=um_per_px, source=source)


def reason(call: object) -> str:
    assert isinstance(call, pytest.ExceptionInfo)
    assert isinstance(call.value, SlideProblemError)
    return call.value.reason


def test_each_link_of_the_chain_counts_only_where_all_before_it_are_silent() -> None:
    vendor, tags = said(0.25), said(0.3, "tiff_tags")
    chain = [
        resolve_mpp([vendor, tags], 20, slide_mpp=0.7, cohort_mpp=0.6, cohort_mpp_if_missing=0.8),
        resolve_mpp([vendor, tags], 20, cohort_mpp=0.6, cohort_mpp_if_missing=0.8),
        resolve_mpp([vendor, tags], 20, cohort_mpp_if_missing=0.8),
        resolve_mpp([said(0.26, "dicom")], 20, cohort_mpp_if_missing=0.8),
        resolve_mpp([tags], 20, cohort_mpp_if_missing=0.8),
        resolve_mpp([], 20, cohort_mpp_if_missing=0.8),
        resolve_mpp([], None, cohort_mpp_if_missing=0.8),
    ]
    assert [(mpp.source, mpp.um_per_px) for mpp in chain] == [
        ("slide", 0.7),
        ("cohort", 0.6),
        ("vendor", 0.25),
        ("dicom", 0.26),
        ("tiff_tags", 0.3),
        ("objective_power", 0.5),
        ("cohort_if_missing", 0.8),
    ]


@pytest.mark.parametrize("um_per_px", [896.0555607777761, 1000.0, 0.049, 5.1])
def test_resolution_tags_meant_for_print_are_no_value(um_per_px: float) -> None:
    tags = said(um_per_px, "tiff_tags")
    assert resolve_mpp([tags], 40).source == "objective_power"
    with pytest.raises(SlideProblemError, match=f"{um_per_px:.6g}") as raised:
        resolve_mpp([tags], None)
    assert reason(raised) == "no_mpp"


@pytest.mark.parametrize("um_per_px", [28.9685, 300.0, 0.02])
def test_values_of_vendors_are_believed_however_coarse(um_per_px: float) -> None:
    assert resolve_mpp([said(um_per_px)], None).um_per_px == um_per_px


@pytest.mark.parametrize("um_per_px", [0.0, -0.5, math.nan, math.inf])
def test_what_is_not_a_positive_number_is_no_value(um_per_px: float) -> None:
    assert resolve_mpp([said(um_per_px), said(0.4, "tiff_tags")], None).source == "tiff_tags"
    assert resolve_mpp([], um_per_px, cohort_mpp_if_missing=0.5).source == "cohort_if_missing"


@pytest.mark.parametrize("um_per_px", [0.0005, 250.0, 0.0, -1.0, math.nan])
def test_a_given_value_that_no_slide_has_is_refused(um_per_px: float) -> None:
    for given_as in ("slide_mpp", "cohort_mpp", "cohort_mpp_if_missing"):
        with pytest.raises(SlideProblemError) as raised:
            resolve_mpp([], None, **{given_as: um_per_px})
        assert reason(raised) == "absurd_mpp"


def test_a_claim_finer_than_light_resolves_is_refused_instead_of_read() -> None:
    with pytest.raises(SlideProblemError) as raised:
        resolve_mpp([said(0.000499, "dicom")], None)
    assert reason(raised) == "absurd_mpp"


def test_pixels_that_are_not_square_are_refused_unless_a_value_is_given() -> None:
    oblong = ClaimedMpp(x_um_per_px=0.5, y_um_per_px=0.511, source="vendor")
    with pytest.raises(SlideProblemError) as raised:
        resolve_mpp([oblong], None)
    assert reason(raised) == "anisotropic"
    assert resolve_mpp([oblong], None, slide_mpp=0.5).um_per_px == 0.5


@given(x=st.floats(0.1, 10), ratio=st.floats(1.0, 1.0199))
def test_the_mean_is_used_where_pixels_are_nearly_square(x: float, ratio: float) -> None:
    y = x * ratio
    mpp = resolve_mpp([ClaimedMpp(x_um_per_px=x, y_um_per_px=y, source="vendor")], None)
    assert min(x, y) <= mpp.um_per_px <= max(x, y)


def test_resolution_tags_are_pixels_per_inch_or_centimetre() -> None:
    inch, centimetre = claim_of_tiff_tags("50800", "50800", "inch"), claim_of_tiff_tags(20_000, 20_000, "centimeter")
    assert inch == centimetre == said(0.5, "tiff_tags")
    assert claim_of_tiff_tags("1", "1", "none") is None
    assert claim_of_tiff_tags("0", "0", "inch") is None
    assert claim_of_tiff_tags(None, None, "inch") is None


@pytest.mark.parametrize(
    ("attributes", "um_per_px"),
    [
        ('PhysicalSizeX="0.5" PhysicalSizeY="0.5"', 0.5),
        ('PhysicalSizeX="500" PhysicalSizeXUnit="nm" PhysicalSizeY="500" PhysicalSizeYUnit="nm"', 0.5),
        ('PhysicalSizeX="5" PhysicalSizeXUnit="pixel" PhysicalSizeY="5" PhysicalSizeYUnit="pixel"', None),
        ('PhysicalSizeX="0.5"', None),
        ("", None),
    ],
)
def test_ome_sizes_are_read_with_their_units(attributes: str, um_per_px: float | None) -> None:
    assert claim_of_ome_xml(OME.format(attributes)) == (said(um_per_px) if um_per_px else None)


def test_text_that_is_not_ome_xml_or_not_a_number_claims_nothing() -> None:
    assert claim_of_ome_xml("Aperio Image Library <Pixels PhysicalSizeX='1'>") is None
    assert claim_of_ome_xml(OME.format('PhysicalSizeX="1" PhysicalSizeY="1"'), image=1) is None
    assert claim("0.5", "n/a", "vendor") is None
