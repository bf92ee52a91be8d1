"""Patches to bytes and back."""

from __future__ import annotations

import io
from typing import cast

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from exaone_prep.manifest import Codec


def encode(patch: NDArray[np.uint8], codec: Codec) -> bytes:
    """An H×W×3 RGB patch as JPEG (libjpeg-turbo) or PNG.

    The slow integer DCT is asked for: libjpeg-turbo's SIMD and plain C versions of it give equal bits, so that the
    bytes do not depend on the CPU.
    """
    if codec.format == "png":
        buffer = io.BytesIO()
        Image.fromarray(patch).save(buffer, "PNG", compress_level=6)
        return buffer.getvalue()
    return cast(
        bytes,
        simplejpeg.encode_jpeg(
            np.ascontiguousarray(patch),
            quality=codec.quality,
            colorspace="RGB",
            colorsubsampling=codec.subsampling,
            fastdct=False,
        ),
    )


def decode(data: bytes) -> NDArray[np.uint8]:
    """An encoded patch as H×W×3 RGB.

    Raises:
        ValueError: The bytes are not a whole image.
    """
    if data[:2] == b"\xff\xd8":
        # Strict: a warning of libjpeg (bytes cut off, say) is an error here.
        return cast("NDArray[np.uint8]", simplejpeg.decode_jpeg(data, colorspace="RGB", fastdct=False, strict=True))
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise ValueError(f"not an image: {error}") from error
