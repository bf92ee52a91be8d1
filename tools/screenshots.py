"""`make screenshots`: take the pictures of `docs/dashboard.md` anew, of a build of generated slides, by Chromium.

The overview is of a build while it runs, of many patches that overlap, so that it takes a while; the other pages are of
one that is complete. Needs a `chromium` on the
path. What is generated stays in the folder for temporary files, whose name says nothing of the machine.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq
import yaml
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from exaone_prep.phantom import PhantomSettings, write_phantoms

ROOT: Final = Path(__file__).resolve().parents[1]
SCENE: Final = Path(tempfile.gettempdir()) / "three-laboratories"
FOLDER: Final = ROOT / "docs" / "pictures"
COMMAND: Final = (sys.executable, "-m", "exaone_prep.cli")
SLIDES: Final = PhantomSettings(
    slides=24,
    labs=3,
    width_px=8192,
    height_px=6144,
    missing_mpp_fraction=0.12,
    truncated_fraction=0.06,
)
WIDE_PX, HIGH_PX, MOST_HIGH_PX = 1200, 800, 1500
_COLOURS: Final = 255


def main() -> int:
    """Make the scene, then look at it."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.stderr.write("There is no Chromium on the path (Debian: apt-get install chromium).\n")
        return 1
    slides, dataset, running = SCENE / "slides", SCENE / "labs", SCENE / "running" / "labs"
    if not (slides / "data_manifest.yaml").exists():
        print("Generating 24 slides of three laboratories ...", flush=True)
        write_phantoms(slides, SLIDES)
    manifest = yaml.safe_load((slides / "data_manifest.yaml").read_text())
    manifest |= {"name": "three-laboratories", "shards": {"samples_per_shard": 300, "slides_per_group": 3}}
    (SCENE / "m.yaml").write_text(yaml.safe_dump(manifest).replace("- lab-", f"- {slides}/lab-"))
    for old in (dataset, running):
        shutil.rmtree(old, ignore_errors=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        with building(running, "--set", "patch.stride_px=96", "--set", "stain.fit=patch"), serving(running) as address:
            _until(lambda: len(list((running / "ledger").glob("*.json"))) >= 1)
            take(browser, f"{address}/d/labs/", "overview", wait_for=r"1 running[^$]*patches/s now\s+[\d,]+\s")
        with building(dataset) as process:
            one_fails(slides, dataset)
            assert process.wait(timeout=600) == 0
        subprocess.run([*COMMAND, "verify", str(dataset)], check=True, capture_output=True)
        with serving(dataset) as address:
            when_it_is_complete(browser, address, dataset)
        browser.close()
    return 0


@contextmanager
def building(dataset: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A build that ends with the block at the latest."""
    command = [*COMMAND, "build", str(SCENE / "m.yaml"), "--out", str(dataset), "--workers", "1", *words]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def one_fails(slides: Path, dataset: Path) -> None:
    """A slide is out of reach until an attempt has failed."""
    hidden = sorted((slides / "lab-0").glob("*.tiff"))[-1]
    _until(lambda: (dataset / "catalog.parquet").exists())
    aside = hidden.rename(hidden.with_suffix(".aside"))
    try:
        _until(lambda: any((dataset / "attempts").glob("*.json")))
    finally:
        aside.rename(hidden)


def when_it_is_complete(browser: Browser, address: str, dataset: Path) -> None:
    """All other pages."""
    site = f"{address}/d/labs"
    shard = sorted((dataset / "shards" / "train").glob("*.tar"))[0].name
    take(browser, f"{site}/slides?sort=kept&down=1", "slides")
    take(browser, f"{site}/slides/{_telling(dataset)}", "slide")
    take(browser, f"{site}/quarantine", "quarantine")
    take(browser, f"{site}/stain", "stain")
    take(browser, f"{site}/shards", "shards")
    take(browser, f"{site}/shards/train/{shard}", "shard")
    take(browser, f"{site}/attempts", "attempts", click="end of the log")
    take(browser, f"{site}/", "phone", dark=True, wide_px=390)


def take(
    browser: Browser,
    address: str,
    name: str,
    *,
    dark: bool = False,
    wide_px: int = WIDE_PX,
    click: str = "",
    wait_for: str = "",
) -> None:
    """Photograph a page from its top, as much of it as a picture in a document may hold."""
    scheme = "dark" if dark else "light"
    page = browser.new_page(viewport={"width": wide_px, "height": HIGH_PX}, color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(address, wait_until="networkidle")
    if wait_for:
        _until(lambda: re.search(wait_for, page.locator("main").inner_text()) is not None)
        page.wait_for_load_state("networkidle")
    if click:
        page.get_by_text(click).first.click()
    page.evaluate("document.querySelectorAll('img').forEach(image => { image.loading = 'eager' })")
    page.wait_for_load_state("networkidle")
    high_px = min(MOST_HIGH_PX, int(page.evaluate("document.documentElement.scrollHeight")))
    png = page.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": wide_px, "height": high_px})
    page.close()
    file = FOLDER / f"dashboard-{name}.png"
    Image.open(io.BytesIO(png)).convert("RGB").quantize(_COLOURS).save(file, optimize=True)
    print(f"{file.relative_to(ROOT)}: {file.stat().st_size:,} bytes", flush=True)


def _telling(dataset: Path) -> str:
    """A slide that is done, of which most was dropped."""
    rows = pq.ParquetFile(dataset / "outcomes.parquet").read(["slide_id", "outcome", "planned", "kept"]).to_pylist()
    done = [row for row in rows if row["outcome"] == "done"]
    return str(max(done, key=lambda row: row["planned"] - row["kept"])["slide_id"])


@contextmanager
def serving(dataset: Path) -> Iterator[str]:
    """The dashboard by its own command; gives its address."""
    words = [*COMMAND, "dashboard", str(dataset), "--port", "0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip().rstrip("/")
    finally:
        process.terminate()
        process.wait()


def _until(true: Callable[[], bool], within_s: float = 300) -> None:
    end = time.monotonic() + within_s
    while not true():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main())
