"""Normalisation of pixels with one fit as a loop for numba: three look-ups per pixel, and their products.

A look-up fetches the float32 factors of all three channels at once, as one word of 16 bytes. Grey levels come from
separate IEEE multiplications (numba fuses nothing unless asked to) and so have the bits of the NumPy engine.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Longs = NDArray[np.int64]

_RUN: Final = 256
_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)


def _lanes(*indices: int) -> ir.Constant:
    return ir.Constant(ir.VectorType(_I32, len(indices)), list(indices))


def _data(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    return context.make_array(kind)(context, builder, array).data


def _multiply(_: Any, words: Any, places: Any, target: Any, start: Any, sums: Any) -> Any:
    """Code for `_RUN` pixels, eight at a time: three words each, multiplied, limited, truncated, summed, stored."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        tables, offsets, out, found = (_data(context, builder, signature.args[i], arguments[i]) for i in (0, 1, 2, 4))
        four, eight = ir.VectorType(ir.FloatType(), 4), ir.VectorType(_I32, 8)
        limit = ir.Constant(ir.VectorType(ir.FloatType(), 8), [255.0] * 8)
        byte = ir.Constant(eight, [255] * 8)  # says that a square fits into 16 bits
        table_bytes = builder.bitcast(tables, _I8.as_pointer())
        base = builder.gep(out, [arguments[3]])
        totals = [cgutils.alloca_once_value(builder, ir.Constant(eight, [0] * 8)) for _ in range(2)]

        def word(first: Any, place: int) -> Any:
            offset = builder.zext(builder.load(builder.gep(first, [_I64(place)])), _I64)
            row = builder.add(offset, _I64(4096 * (place % 3)))
            entry = builder.load(builder.bitcast(builder.gep(table_bytes, [row]), four.as_pointer()))
            entry.align = 4
            return entry

        with cgutils.for_range_slice(builder, _I64(0), _I64(3 * _RUN), _I64(24), _I64) as (index, _):
            first = builder.gep(offsets, [index])
            pairs = []
            for pixel in range(0, 8, 2):
                entries = [
                    builder.shuffle_vector(
                        word(first, 3 * pixel + channel), word(first, 3 * pixel + 3 + channel), _lanes(*range(8))
                    )
                    for channel in range(3)
                ]
                product = builder.fmul(builder.fmul(entries[0], entries[1]), entries[2])
                below = builder.fcmp_ordered("<", product, limit)
                levels = builder.and_(builder.fptosi(builder.select(below, product, limit), eight), byte)
                for total, addend in zip(totals, (levels, builder.mul(levels, levels)), strict=True):
                    builder.store(builder.add(builder.load(total), addend), total)
                pairs.append(levels)
            for half in range(2):
                quads = builder.shuffle_vector(pairs[2 * half], pairs[2 * half + 1], _lanes(*range(16)))
                packed = builder.trunc(quads, ir.VectorType(_I8, 16))
                rgb = builder.shuffle_vector(packed, packed, _lanes(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14))
                place = builder.gep(base, [builder.add(index, _I64(12 * half))])
                builder.store(rgb, builder.bitcast(place, ir.VectorType(_I8, 12).as_pointer())).align = 1
        for kind, total in enumerate(totals):
            lanes = builder.load(total)
            for channel in range(3):
                lane, other = (builder.extract_element(lanes, _I32(channel + at)) for at in (0, 4))
                place = builder.gep(found, [_I64(3 * kind + channel)])
                addend = builder.zext(builder.add(lane, other), _I64)
                builder.store(builder.add(builder.load(place), addend), place)
        return context.get_dummy_value()

    return types.void(words, places, target, start, sums), generate


multiply: Any = intrinsic(_multiply)


def apply(source: Bytes, words: NDArray[np.float32], target: Bytes, sums: Longs) -> None:
    """Grey levels trunc(min(255, (a · b) · c)) of the table entries of each pixel, and their sums.

    Args:
        source: uint8 (3N,).
        words: float32 (3072,), the tables of `exaone_prep.stain.tables` of one fit, flat.
        target: uint8 (3N,).
        sums: int64 (6,) to add to: the sums of red, green, blue of `target`, then of their squares.
    """
    whole = len(source) // (3 * _RUN) * (3 * _RUN)
    places = np.empty(3 * _RUN, np.uint16)
    for start in range(0, whole, 3 * _RUN):
        run = source[start : start + 3 * _RUN]
        for i in range(3 * _RUN):
            places[i] = np.uint16(run[i]) << np.uint16(4)  # bytes from the start of a table
        multiply(words, places, target, start, sums)
    for start in range(whole, len(source), 3):
        for lane in range(3):
            a = words[4 * np.int64(source[start]) + lane]
            b = words[1024 + 4 * np.int64(source[start + 1]) + lane]
            c = words[2048 + 4 * np.int64(source[start + 2]) + lane]
            level = np.uint8(min(a * b * c, np.float32(255.0)))
            target[start + lane] = level
            sums[lane] += np.int64(level)
            sums[3 + lane] += np.int64(level) * np.int64(level)
