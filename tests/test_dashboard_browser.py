"""The dashboard in a real browser: it moves while a build runs, repairs one, and can be used by everybody."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from exaone_prep import control
from exaone_prep.dataset import open_dataset
from exaone_prep.ledger import committed_groups
from exaone_prep.storage import open_storage
from exaone_prep.verify import verify
from tests.builds import finish, start
from tests.commandline import run_here
from tests.committed import results, samples
from tests.dashboards import serving
from tests.smallslides import small_slide, small_slides

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="There is no Chromium on the path (Debian: chromium).")

PAGES = ("", "slides", "quarantine", "stain", "shards", "attempts", "slides/one", "slides/bare")
DESKTOP, PHONE = (1280, 900), (390, 844)
NewPage = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Chromium's own sandbox needs rights that containers often lack; it looks at nothing but our pages.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def new_page(browser: Browser) -> Iterator[NewPage]:
    """Opens pages; at the end no console may have had an error, and nothing may have been asked of another machine."""
    complaints: list[str] = []
    contexts = []

    def open_one(size: tuple[int, int] = DESKTOP, *, dark: bool = False, scripts: bool = True) -> Page:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if dark else "light",
            java_script_enabled=scripts,
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda one: complaints.append(one.text) if one.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda one: None if "://127.0.0.1:" in one.url else complaints.append(one.url))
        page.on("response", lambda one: complaints.append(f"{one.status} {one.url}") if one.status >= 400 else None)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of two slides that are done, and one without mpp and one that is no slide, with a failed attempt."""
    folder = tmp_path_factory.mktemp("browser")
    for number, (name, mpp) in enumerate((("one", 0.5), ("two", 0.5), ("bare", None))):
        small_slide(folder / "slides" / f"{name}.tiff", number, mpp=mpp)
    (folder / "slides" / "text.tiff").write_text("no slide")
    document = {"name": "first", "cohorts": [{"name": "c", "slides": ["slides"]}], "splits": {}}
    (folder / "m.yaml").write_text(yaml.safe_dump(document))
    run_here("build", folder / "m.yaml", "--out", folder / "first", "--workers", 1).succeeded()
    verify(open_dataset(folder / "first"))
    (folder / "first" / "attempts").mkdir()
    attempt = {"group": 0, "host": "h", "time": 1.0, "error": "UnreachableError", "sentence": "It cannot be reached."}
    attempt |= {"log": '{"time": 1}\n' * 60, "traceback": "Traceback"}
    (folder / "first" / "attempts" / "group-000000-1.json").write_text(json.dumps(attempt))
    return folder


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[str]:
    with serving(folder / "first") as address:
        yield f"{address}/d/first"


def test_while_a_build_runs_its_figures_move_on_the_page(tmp_path: Path, new_page: NewPage) -> None:
    small_slides(tmp_path / "slides", 8)
    out = tmp_path / "out"
    settings = ("--set", "shards.slides_per_group=2", "--set", "splits={}", "--workers", "1")
    storage = open_storage(out)
    building = start("build", "--slides", f"{tmp_path}/slides/*.tiff", "--out", str(out), *settings)
    try:
        _until(lambda: len(committed_groups(storage)) >= 1)
        control.pause(storage)
        with serving(out) as address:
            page = new_page()
            page.goto(f"{address}/d/out/")
            expect(page.locator("h1")).to_contain_text("paused")
            page.evaluate("window.loaded_once = true")
            assert listening(building.pid) == set(), "builders serve nothing of it"
            # The group that was at work when the pause began may still be committed.
            _until(lambda: _stage(out) == "pause")
            done = len(committed_groups(storage))
            bar = page.get_by_label(re.compile("^groups"))
            expect(bar).to_have_attribute("value", str(done), timeout=20_000)
            expect(page.locator("#live table").first).to_contain_text("pause")
            patches = page.locator(".figures dd").first
            before = patches.inner_text()
            assert 0 < done < 4
            control.resume(storage)
            expect(bar).to_have_attribute("value", "4", timeout=60_000)
            expect(page.locator("h1")).to_contain_text("complete", timeout=20_000)
            assert _number(before) < _number(patches.inner_text()) == len(list(samples(out)))
            assert page.evaluate("window.loaded_once"), "the page was never loaded anew"
        assert finish(building).code == 0
    finally:
        building.kill()


def listening(leader: int) -> set[str]:
    """Sockets that the processes of a process group listen with; connections are all of TCP."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError):
            rows = [line.split() for line in Path(table).read_text().splitlines()[1:]]
            inodes |= {f"socket:[{row[9]}]" for row in rows if row[3] == "0A"}
    held = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getpgid(int(process.name)) == leader:
                held |= {str(file.readlink()) for file in (process / "fd").iterdir()}
    assert held
    return held & inodes


def _until(true: Callable[[], bool], within_s: float = 90) -> None:
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def _stage(out: Path) -> str:
    try:
        return str(json.loads(next((out / "progress").iterdir()).read_text())["stage"])
    except (StopIteration, FileNotFoundError, ValueError):
        return ""


def _number(text: str) -> int:
    return int(text.split("\n")[0].replace(",", ""))


def test_a_slide_page_shows_its_overlay_in_place_and_can_hide_it(site: str, new_page: NewPage) -> None:
    page = new_page()
    page.goto(f"{site}/slides/one")
    page.wait_for_load_state("networkidle")
    images = page.locator(".layers img")
    assert images.count() == 3
    boxes = [images.nth(number).bounding_box() for number in range(3)]
    assert boxes[0] == boxes[1] == boxes[2]
    assert boxes[0] is not None
    assert min(boxes[0]["width"], boxes[0]["height"]) > 300
    shown = page.locator(".layers").screenshot()
    page.get_by_label(re.compile("^patches: ")).uncheck()
    assert page.locator(".layers").screenshot() != shown
    page.get_by_label("outline of the tissue").uncheck()
    expect(page.locator(".layers .layer:visible")).to_have_count(0)
    for box in page.get_by_role("checkbox").all():
        box.check()
    for number in range(page.locator("img").count()):
        image = page.locator("img").nth(number)
        image.scroll_into_view_if_needed()
        expect(image).to_have_js_property("complete", True)
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100


def test_the_list_of_quarantined_slides_is_filtered_and_repairs_a_build(
    site: str, folder: Path, new_page: NewPage, tmp_path: Path
) -> None:
    page = new_page()
    page.goto(f"{site}/quarantine")
    assert page.locator("table.cards tbody tr").count() == 2
    page.get_by_role("link", name="no_mpp").click()
    expect(page.locator("table.cards tbody tr")).to_have_count(1)
    expect(page.locator("table.cards")).to_contain_text("bare")
    with page.expect_download() as downloading:
        page.get_by_role("link", name="Download").click()
    fix = tmp_path / downloading.value.suggested_filename
    downloading.value.save_as(fix)
    with fix.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["slide_id"] for row in rows] == ["bare"]
    rows[0]["mpp"] = "0.5"
    with fix.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    words = ("--after", folder / "first", "--overrides", fix, "--workers", 1)
    run_here("build", folder / "m.yaml", "--out", tmp_path / "second", *words).succeeded()
    assert results(tmp_path / "second") == {"bare": "done", "text": "not_a_slide"}
    with serving(folder / "first", tmp_path / "second") as address:
        page.goto(f"{address}/d/all/slides")
        expect(page.locator("table.cards tbody tr")).to_have_count(4)
        expect(page.get_by_role("row", name="bare")).to_contain_text("done")


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_no_page_has_what_people_stumble_over(
    site: str, folder: Path, new_page: NewPage, size: tuple[int, int], dark: bool
) -> None:
    page, axe = new_page(size, dark=dark), Axe()
    shard = next((folder / "first" / "shards" / "train").glob("*.tar")).name
    for path in (*PAGES, f"shards/train/{shard}"):
        page.goto(f"{site}/{path}")
        for summary in page.locator("summary").all():
            summary.click()
        found = axe.run(page).response["violations"]
        serious = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
        assert serious == [], path
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} is wider than the screen"


def test_axe_would_find_something(site: str, new_page: NewPage) -> None:
    page = new_page()
    page.goto(f"{site}/slides/one")
    page.evaluate("document.querySelector('.layers img').removeAttribute('alt')")
    assert "image-alt" in [one["id"] for one in Axe().run(page).response["violations"]]


def test_pages_are_used_by_keyboard_alone(site: str, new_page: NewPage) -> None:
    page = new_page()
    page.goto(f"{site}/slides")
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to the content")
    assert page.locator(":focus").evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_attribute("name", "q")
    page.keyboard.type("TWO")
    page.keyboard.press("Enter")
    expect(page.locator("table.cards tbody tr")).to_have_count(1)
    page.goto(f"{site}/slides")
    page.get_by_role("link", name="patches", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("columnheader", name="patches")).to_have_attribute("aria-sort", "ascending")
    page.get_by_role("link", name="patches").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("columnheader", name="patches")).to_have_attribute("aria-sort", "descending")
    counts = [int(text) for text in page.locator("td[data-label=patches]").all_inner_texts()]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 0


def test_without_scripts_everything_but_the_renewal_works(site: str, new_page: NewPage) -> None:
    page = new_page(scripts=False)
    page.goto(f"{site}/slides")
    page.get_by_label("outcome").select_option("quarantined")
    page.get_by_role("button", name="show").click()
    expect(page.locator("table.cards tbody tr")).to_have_count(2)
    page.goto(f"{site}/attempts")
    page.get_by_text("end of the log").click()
    expect(page.locator("pre").first).to_be_visible()


def test_a_token_is_entered_once_and_leaves_the_address(folder: Path, browser: Browser) -> None:
    with serving(folder / "first", token="open sesame") as address:
        page = browser.new_page()
        assert page.goto(f"{address}/d/first/slides").status == 401  # type: ignore[union-attr]
        page.get_by_label("token").fill("open sesame")
        page.get_by_role("button", name="look").click()
        expect(page.locator("h1")).to_have_text("Slides")
        assert page.url == f"{address}/d/first/slides"
        page.goto(f"{address}/d/first/stain")
        expect(page.locator("h1")).to_have_text("Stain")
        page.close()
