"""The figures of `chain.py` as tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_TITLES = {"": "at 0.5 µm/px", "_40x": "0.25 µm/px, to 0.5", "_real": "of real tissue"}
_ROWS = {
    "floor_ms": "floor: decode each tile, encode each patch",
    "chain_slide_fit_ms": "this chain, fit: slide",
    "chain_slide_fit_unmeasured_ms": "  the same without quality measures",
    "chain_patch_fit_ms": "this chain, fit: patch",
    "hs2p_ms": "hs2p, no normalisation, fastest way",
    "openslide_ms": "OpenSlide + torchstain + Pillow",
    "tiatoolbox_ms": "TIAToolbox, Macenko",
}
_STEPS = {
    "floor_decode_ms": "floor: decode",
    "floor_encode_ms": "floor: encode",
    "step_read_ms": "read",
    "step_measure_ms": "measure quality",
    "step_normalise_ms": "normalise and sum channels, fit: slide",
    "step_normalise_fit_patch_ms": "normalise, fit: patch",
    "step_encode_ms": "encode",
    "cut_ms": "cut: all of these, spool",
    "pack_ms": "pack: tar, checksum, index",
    "commit_ms": "commit: read back, index, ledger",
    "read_openslide_ms": "reading through OpenSlide",
    "read_direct_ms": "reading as the build does",
}
_TOTALS = {
    "start_up": "start-up of builder and worker",
    "survey": "survey",
    "chain": "chain",
    "pictures": "pictures",
    "verify": "verify, beside it",
    "verify_deep": "verify --deep, beside it",
}


def table(figures: Mapping[str, Any], ratios: Mapping[str, Any]) -> str:
    """All tables as text, each line with its end."""
    return "".join(f"{line}\n" for line in _lines(figures, ratios))


def _lines(figures: Mapping[str, Any], ratios: Mapping[str, Any]) -> Iterator[str]:
    for suffix, title in _TITLES.items():
        if f"slide_px{suffix}" not in figures:
            continue
        yield f"Slide of {figures[f'slide_px{suffix}']} px {title}, {figures[f'kept{suffix}']} patches, one worker"
        yield f"  {'':44}{'ms/patch':>10}{'patches/s/core':>16}{'× floor':>9}{'× chain':>9}"
        floor, chain = figures.get(f"floor_ms{suffix}"), figures[f"chain_slide_fit_ms{suffix}"]
        for key, name in _ROWS.items():
            spent = figures.get(key + suffix)
            if isinstance(spent, str):
                yield f"  {name:44}{spent:>10}"
            elif spent is not None:
                ratio = ratios.get(f"chain_over_floor_{key[6:-3]}{suffix}", spent / floor if floor else None)
                over = f"{'–':>9}" if ratio is None else f"{ratio:>9.2f}"
                yield f"  {name:44}{spent:>10.3f}{1000 / spent:>16.0f}{over}{spent / chain:>9.2f}"
        yield f"  {'stages':44}{'ms/patch':>10}"
        for key, name in _STEPS.items():
            spent = figures.get(key + suffix)
            if spent is not None:
                yield f"    {name:42}{spent:>10.3f}"
        for key in sorted(key for key in figures if "_ms (" in key and key.endswith(")" + suffix)):
            tool, _, way = key.removesuffix(suffix).partition("_ms (")
            yield f"    {tool + ': ' + way[:-1]:42}{figures[key]:>10.3f}"
        yield ""
    if "build_slide_fit_total_ms" in figures:
        total = figures["build_slide_fit_total_ms"]
        yield f"Whole build from the command line, one worker: {total / 1000:.2f} s of CPU time; of this, or beside it"
        for key, name in _TOTALS.items():
            yield f"  {name:44}{ratios[f'{key}_share_of_build']:>10.1%}"
        yield f"  {'import to first patch':44}{figures['first_patch_s']:>8.2f} s"
        yield f"  {'exaone-prep --help':44}{figures['help_s']:>8.2f} s"
        yield ""
    yield "Ratios (medians of runs)"
    for name, value in ratios.items():
        if not name.endswith("share_of_build"):
            yield f"  {name:44}{value:>10.3f}"
