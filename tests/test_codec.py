"""Encoded patches: the same bytes on every CPU, PNG without loss, damage seen."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from exaone_prep.codec import decode, encode
from exaone_prep.manifest import Codec
from tests.realdata import camelyon_patches, needs_real_data, read_rgb
from tests.smallslides import tissue_rgb

Rgb = NDArray[np.uint8]


def patch() -> Rgb:
    return np.ascontiguousarray(tissue_rgb(0)[256:512, 256:512])


def frame_of(jpeg: bytes) -> dict[str, object]:
    """Kind of frame, precision, size and sampling factors from the start-of-frame segment (ITU-T T.81, B.2.2)."""
    place = 2
    while not 0xC0 <= jpeg[place + 1] <= 0xC3:
        assert jpeg[place] == 0xFF
        place += 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
    body = jpeg[place + 4 :]
    factors = [divmod(body[7 + 3 * component], 16) for component in range(body[5])]
    size = (int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big"))
    return {"kind": jpeg[place + 1], "bits": body[0], "size": size, "factors": factors}


@pytest.mark.parametrize(
    ("subsampling", "luma"), [("420", (2, 2)), ("422", (2, 1)), ("444", (1, 1))], ids=["420", "422", "444"]
)
def test_subsampling_is_that_of_the_manifest(subsampling: str, luma: tuple[int, int]) -> None:
    codec = Codec.model_validate({"subsampling": subsampling})
    baseline = 0xC0
    expected = {"kind": baseline, "bits": 8, "size": (256, 256), "factors": [luma, (1, 1), (1, 1)]}
    assert frame_of(encode(patch(), codec)) == expected


def test_more_quality_is_more_bytes_and_less_error() -> None:
    original = patch()
    encoded = [encode(original, Codec(quality=quality, subsampling="444")) for quality in (30, 60, 90, 100)]
    errors = [np.abs(decode(data).astype(int) - original).mean() for data in encoded]
    assert [len(data) for data in encoded] == sorted(len(data) for data in encoded)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1 < errors[0]


# Which SIMD code libjpeg-turbo may use; set before its first call in a process.
SIMD = ("JSIMD_FORCENONE", "JSIMD_FORCESSE2", "JSIMD_FORCEAVX2")

_ENCODE = """
import hashlib, sys
import numpy as np
from exaone_prep.codec import decode, encode
from exaone_prep.manifest import Codec
patches = np.load(sys.argv[1])
digest = hashlib.sha256()
for subsampling in ("420", "422", "444"):
    for quality in (50, 90, 100):
        for patch in patches:
            data = encode(patch, Codec(quality=quality, subsampling=subsampling))
            digest.update(data)
            digest.update(decode(data).tobytes())
print(digest.hexdigest())
"""


def digests_by_simd(patches: Rgb, file: Path) -> dict[str, str]:
    """SHA-256 over encoded and decoded bytes, made by processes that use different parts of the CPU."""
    np.save(file, patches)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("JSIMD")}
    command = [sys.executable, "-c", _ENCODE, str(file)]
    return {
        name: subprocess.run(command, env=plain | {name: "1"}, check=True, capture_output=True, text=True).stdout
        for name in ("none set", *SIMD)
    }


def test_the_library_heeds_the_switches_that_these_tests_turn() -> None:
    """Or else the next tests could not fail."""
    binary = b"".join(file.read_bytes() for file in Path(simplejpeg.__file__).parent.glob("_jpeg*.so"))
    assert all(switch.encode() in binary for switch in SIMD)


def test_jpeg_bytes_and_pixels_do_not_depend_on_the_cpu(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 256, 256, 3), dtype=np.uint8)
    small = digests_by_simd(np.stack([patch(), *noise]), tmp_path / "patches.npy")
    assert len(set(small.values())) == 1, small


@needs_real_data
def test_jpeg_bytes_of_real_patches_do_not_depend_on_the_cpu(tmp_path: Path) -> None:
    real = np.stack([read_rgb(path) for path in camelyon_patches()[::9]])
    found = digests_by_simd(real, tmp_path / "patches.npy")
    assert len(set(found.values())) == 1, found


def test_jpeg_bytes_stay_what_they_were() -> None:
    """Patches of equal versions of packages are equal; this one also sees a change that no version tells of."""
    y, x = np.mgrid[0:64, 0:64]
    ramps = np.stack([x * 4, y * 4, (x * y) % 256], axis=-1).astype(np.uint8)
    assert (
        hashlib.sha256(encode(ramps, Codec())).hexdigest()
        == "7ecfb1cf02cb4b132424f2f37022a05dcd76eabdee04791c0a677d80e733810f"
    )


@settings(max_examples=30)
@given(arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))))
def test_png_loses_nothing(pixels: Rgb) -> None:
    data = encode(pixels, Codec(format="png"))
    assert data.startswith(b"\x89PNG")
    assert np.array_equal(decode(data), pixels)


def test_a_view_into_a_larger_array_is_encoded_as_its_copy() -> None:
    whole = tissue_rgb(0)
    for codec in (Codec(), Codec(format="png")):
        assert encode(whole[64:320, 64:320], codec) == encode(whole[64:320, 64:320].copy(), codec)


@pytest.mark.parametrize("codec", [Codec(), Codec(format="png")], ids=["jpeg", "png"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_an_image_that_is_cut_off_is_refused(codec: Codec, share: float) -> None:
    data = encode(patch(), codec)
    with pytest.raises(ValueError, match=r".+"):
        decode(data[: int(len(data) * share)])


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8" + b"\xff" * 900])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode(data)


def test_a_png_with_a_flipped_bit_is_refused() -> None:
    data = bytearray(encode(patch(), Codec(format="png")))
    data[len(data) // 2] ^= 1
    with pytest.raises(ValueError, match=r".+"):
        decode(bytes(data))
