"""What it costs to make a data set of a slide: over the codec floor, stage by stage, and beside other tools.

The *chain* is what every patch more costs: reading, measuring, normalising, encoding, packing, index and commit. The
*floor* is what no tool can do without: each JPEG tile under a planned patch is decoded once, each kept patch is encoded
once. All of it is CPU time of all threads and processes with one worker; waiting for disks is not in it. Ratios are
made within a run and their median is given, because machines are noisy.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from chain_table import table
from floor import Floor
from group_build import GroupCost, build_group, middle
from growth import growth
from inputs import LARGE_PX, repeated_phantom, repeated_real
from report import Figures, document, write
from slide_peers import PEERS_PYTHON, TOOLS, PeerFailedError, peer_cost
from stages import medians, read_ms, steps
from surveyed import Surveyed, middle_rows, survey
from whole_build import build_ms, first_patch_s, help_s, median_of, start_up_ms, verify_ms

from exaone_prep.pixels import PixelSource

_STEP_PATCHES = 512
_CHAINS: dict[str, dict[str, Any]] = {
    "slide_fit": {},
    "patch_fit": {"fit": "patch"},
    "slide_fit_unmeasured": {"measured": False},
}


def chain_figures(slide: Surveyed, runs: int) -> tuple[Figures, Figures]:
    """Floor, chain and steps, again and again in turn; per kept patch."""
    floor = Floor(slide)
    some = middle_rows(slide.positions, _STEP_PATCHES)
    build_group([slide.path])  # what a first build costs more is not measured
    stepping, patch_stepping = [], []
    groups: dict[str, list[GroupCost]] = {name: [] for name in _CHAINS}
    compared: dict[str, list[float]] = {name: [] for name in _CHAINS}
    for _ in range(runs):
        for name, how in _CHAINS.items():
            # The machine may change its pace within seconds: each chain is held against the floors around it.
            before = floor.measure()
            cost = build_group([slide.path], **how)
            after = floor.measure()
            groups[name].append(cost)
            compared[name].append(2 * cost.chain / (before.ms(cost.kept) + after.ms(cost.kept)))
        stepping.append(steps(slide, some).ms)
        patch_stepping.append(steps(slide, some, fit="patch").ms)
    cost = middle(groups["slide_fit"])
    figures: Figures = {
        "planned": len(slide.positions),
        "kept": cost.kept,
        "pixels_from": slide.pixels.pixels,
        "floor_encode_ms": statistics.median(one.encode_ms for one in floor.measured),
        **{f"step_{name}_ms": value for name, value in medians(stepping).items()},
        "step_normalise_fit_patch_ms": medians(patch_stepping)["normalise"],
        "cut_ms": cost.cut / cost.kept,
        "pack_ms": cost.pack / cost.kept,
        "commit_ms": cost.commit / cost.kept,
        "survey_total_ms": cost.survey,
        "pictures_total_ms": cost.pictures,
    }
    for name, costs in groups.items():
        figures[f"chain_{name}_ms"] = statistics.median(each.chain for each in costs)
    ratios: Figures = {}
    if not floor.tiles:  # what must be decoded is not known
        return figures, ratios
    figures |= {
        "tiles": floor.tiles,
        "floor_decode_ms": statistics.median(one.decode_total_ms for one in floor.measured) / cost.kept,
        "floor_ms": statistics.median(one.ms(cost.kept) for one in floor.measured),
    }
    least_floor = min(one.ms(cost.kept) for one in floor.measured)
    for name, costs in groups.items():
        ratios[f"chain_over_floor_{name}"] = statistics.median(compared[name])
        # Where other programs share the machine, the least of all runs says more.
        ratios[f"least_chain_over_floor_{name}"] = min(each.chain for each in costs) / least_floor
    return figures, ratios


def reading_figures(slide: Surveyed, runs: int) -> tuple[Figures, float]:
    """Reading alone, through OpenSlide and as the build reads; with the ratio of both."""
    some = middle_rows(slide.positions, _STEP_PATCHES)
    pairs = [(read_ms(slide, some, PixelSource()), read_ms(slide, some, slide.pixels)) for _ in range(runs)]
    figures: Figures = {
        "read_openslide_ms": statistics.median(through for through, _ in pairs),
        "read_direct_ms": statistics.median(direct for _, direct in pairs),
    }
    return figures, statistics.median(through / direct for through, direct in pairs)


def peer_figures(
    slide: Surveyed, chain_ms: Mapping[str, float], runs: int, python: Path, tools: Mapping[str, int] = TOOLS
) -> tuple[Figures, Figures]:
    """Other tools, and their fastest way over our chain; `absent` where no Python has one.

    Args:
        slide: Theirs and ours.
        chain_ms: The chain by its fit.
        runs: Of each way.
        python: Of their environment.
        tools: Which, with the least number of patches for each.
    """
    figures: Figures = {}
    ratios: Figures = {}
    for tool, patches in tools.items():
        try:
            cost = peer_cost(tool, slide, middle_rows(slide.positions, patches), runs, python)
        except PeerFailedError as error:  # a quarter of an hour of other figures is not lost for it
            sys.stderr.write(f"{error}\n")
            figures[f"{tool}_ms"] = "failed"
            continue
        if cost is None:
            figures[f"{tool}_ms"] = "absent"
            continue
        figures[f"{tool}_version"] = cost.version
        for way, spent in cost.ways.items():
            figures[f"{tool}_ms ({way})"] = spent
        counted = {way: spent for way, spent in cost.ways.items() if way not in cost.for_comparison}
        fastest = min(counted, key=lambda way: counted[way])
        figures[f"{tool}_ms"], figures[f"{tool}_fastest"] = counted[fastest], fastest
        ratios[f"{tool}_over_chain"] = counted[fastest] / chain_ms["slide_fit"]
        ratios[f"{tool}_over_chain_patch_fit"] = counted[fastest] / chain_ms["patch_fit"]
    vips = [spent for name, spent in figures.items() if name.startswith("hs2p_ms (vips") and isinstance(spent, float)]
    if vips:
        ratios["hs2p_vips_over_chain"] = min(vips) / chain_ms["slide_fit"]
    return figures, ratios


def whole_figures(slide: Surveyed, folder: Path, figures: Figures, runs: int) -> tuple[Figures, Figures]:
    """A whole build from the command line, the shares of survey, pictures and verify in it, and start-up."""
    out = folder / "dataset"
    kept, floor = number(figures["kept"]), figures.get("floor_ms")
    # `fit: slide` comes last, so that its data set is there to be verified.
    whole = {fit: median_of(runs, partial(build_ms, slide.path, out, fit)) for fit in ("patch", "slide")}
    found: Figures = {f"build_{fit}_fit_total_ms": spent for fit, spent in whole.items()}
    found |= {
        "start_up_total_ms": median_of(runs, start_up_ms),
        "verify_total_ms": median_of(runs, partial(verify_ms, out)),
        "verify_deep_total_ms": median_of(runs, partial(verify_ms, out, "--deep")),
        "first_patch_s": median_of(runs, partial(first_patch_s, slide, folder)),
        "help_s": median_of(runs, help_s),
    }
    shares: Figures = {
        f"{name}_share_of_build": number((figures | found)[f"{name}_total_ms"]) / whole["slide"]
        for name in ("survey", "pictures", "start_up", "verify", "verify_deep")
    }
    shares["chain_share_of_build"] = number(figures["chain_slide_fit_ms"]) * kept / whole["slide"]
    if floor is not None:
        for fit, spent in whole.items():
            shares[f"build_over_floor_{fit}_fit"] = spent / kept / number(floor)
    return found, shares


def number(value: float | int | str | None) -> float:
    """A figure that is a number."""
    assert isinstance(value, float | int)
    return value


def measured(path: Path, arguments: argparse.Namespace, *, whole: bool) -> tuple[Figures, Figures]:
    """All of it for one slide."""
    with tempfile.TemporaryDirectory() as name:
        slide = survey(path, Path(name))
        sys.stderr.write(f"{path.name}: {len(slide.positions)} patches; floor, chain and steps …\n")
        figures, ratios = chain_figures(slide, arguments.runs)
        figures = {"slide_px": f"{slide.survey.width_px}x{slide.survey.height_px}", "mpp": slide.survey.mpp} | figures
        if slide.pixels.pixels == "tiles":
            more, ratios["openslide_over_direct"] = reading_figures(slide, arguments.runs)
            figures |= more
        if not arguments.no_peers:
            sys.stderr.write("other tools …\n")
            chain_ms = {fit: number(figures[f"chain_{fit}_ms"]) for fit in _CHAINS}
            for target, more in zip(
                (figures, ratios), peer_figures(slide, chain_ms, arguments.runs, arguments.peers_python), strict=True
            ):
                target |= more
        if whole:
            sys.stderr.write("whole builds, verify, start-up …\n")
            for target, more in zip(
                (figures, ratios), whole_figures(slide, Path(name), figures, arguments.runs), strict=True
            ):
                target |= more
    return figures, ratios


def inputs(arguments: argparse.Namespace) -> dict[str, Path]:
    """What to measure on, by the suffix that its figures get."""
    if arguments.slide is not None:
        return {"": arguments.slide.resolve()}
    side_px, base_px = arguments.side_px, min(4096, arguments.side_px)
    found = {
        "": repeated_phantom(side_px, base_px=base_px),
        "_40x": repeated_phantom(2 * side_px, 0.25, base_px=base_px),  # as much tissue
    }
    real = repeated_real(side_px)
    return found if real is None else found | {"_real": real}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object on the last line")
    parser.add_argument("--output", type=Path, help="also write that object to a file")
    parser.add_argument("--slide", type=Path, help="a slide of one's own, instead of generated ones")
    parser.add_argument("--side-px", type=int, default=LARGE_PX, help="of the generated slides at 20×")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--no-peers", action="store_true", help="without other tools")
    parser.add_argument("--no-growth", action="store_true", help="without larger slides and groups")
    parser.add_argument("--peers-python", type=Path, default=PEERS_PYTHON)
    arguments = parser.parse_args()
    figures: Figures = {"input": "generated" if arguments.slide is None else "own"}
    ratios: Figures = {}
    for suffix, path in inputs(arguments).items():
        found, compared = measured(path, arguments, whole=not suffix)
        figures |= {name + suffix: value for name, value in found.items()}
        ratios |= {name + suffix: value for name, value in compared.items()}
    if arguments.slide is None and not arguments.no_growth:
        sys.stderr.write("larger slides, larger groups …\n")
        ratios |= growth(max(2, arguments.runs // 2))
    made = document("chain", figures, ratios)
    sys.stdout.write(table(made["figures"], made["ratios"]))
    write(made, to=arguments.output, last_line=arguments.json)


if __name__ == "__main__":
    main()
