"""From encoded samples to pixels."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from exaone_train.errors import DamageError
from exaone_train.reader import Sample

Pixels = NDArray[np.uint8]

Decoded = list[tuple[str, str, bool]]
"""Key and slide of each image, and whether it stands in for another."""

log = logging.getLogger(__name__)


def decode(image: memoryview, pixels: Pixels) -> str:
    """Decode a JPEG (libjpeg-turbo, the same pixels as Pillow's) or PNG.

    Args:
        image: Its bytes.
        pixels: uint8 (size, size, 3), contiguous; gets the pixels, RGB.

    Returns:
        What is wrong: empty if it is a whole image of this size.
    """
    try:
        if image[0] == 0xFF:  # as every JPEG begins
            # Strict: a warning of libjpeg (bytes cut off, say) is an error here.
            shape = simplejpeg.decode_jpeg(image, "RGB", buffer=pixels, strict=True).shape
        else:
            with Image.open(io.BytesIO(image), formats=["PNG"]) as opened:
                found = np.asarray(opened.convert("RGB"))
            shape = found.shape
            pixels[...] = found if shape == pixels.shape else 0
    except Exception as error:  # noqa: BLE001 (Pillow has many kinds)
        return f"does not decode: {' '.join(str(error).split())}"
    return "" if shape == pixels.shape else f"has {shape[1]}×{shape[0]} px"


class Decoder:
    """Decodes, and says what is damaged: as an error, or in the log, once per shard."""

    def __init__(self, on_damage: Literal["fail", "skip"]) -> None:
        self._skip, self._known = on_damage == "skip", set[str]()

    def decode(self, samples: Sequence[Sample], pixels: Pixels, others: Callable[[int], Iterable[Sample]]) -> Decoded:
        """Decode samples; another, the first that is whole, stands in for a damaged one where that is passed over.

        Args:
            samples: One for each image.
            pixels: uint8 (n, size, size, 3), contiguous; gets the pixels, RGB.
            others: Gives those that may stand in for the sample of a number.

        Raises:
            DamageError: A sample is damaged and that is not passed over, or nothing can stand in.
        """
        decoded, images = [(sample.key, sample.slide_id, False) for sample in samples], list(pixels)
        for number, sample in enumerate(samples):
            if self.is_whole(sample, images[number]):
                continue
            other = next((other for other in others(number) if self.is_whole(other, images[number])), None)
            if other is None:
                raise DamageError(f"Too much is damaged: nothing whole was found to stand in for {sample.key}.")
            decoded[number] = (other.key, other.slide_id, True)
        return decoded

    def is_whole(self, sample: Sample, pixels: Pixels) -> bool:
        """Decode a sample; False where it is damaged and that is passed over.

        Raises:
            DamageError: It is damaged and that is not passed over.
        """
        wrong = sample.damage or decode(sample.image, pixels)
        if not wrong:
            return True
        sentence = sample.damage or f"The image {sample.key} of the shard {sample.tar} {wrong}."
        if not self._skip:
            raise DamageError(sentence)
        if sample.tar not in self._known:
            self._known.add(sample.tar)
            log.warning("%s What is damaged in this shard is passed over.", sentence)
        return False
