"""The pages of the dashboard: who may see them, what they escape, what they find, and what Prometheus reads."""

from __future__ import annotations

import hashlib
import io
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from exaone_prep.dataset import open_dataset
from exaone_prep.verify import verify
from tests.builds import finish, start
from tests.commandline import run, run_here
from tests.committed import samples
from tests.dashboards import Answer, get, serving
from tests.smallslides import small_slide

ROOT = Path(__file__).resolve().parents[1]
EVIL = '<script>alert("x")</script>&'
PAGES = ("", "slides", "quarantine", "stain", "shards", "attempts")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of two slides and one without mpp, whose table says evil things, and a second that mends it."""
    folder = tmp_path_factory.mktemp("pages")
    for number, (name, mpp) in enumerate((("one", 0.5), ("two", 0.5), ("bare", None))):
        small_slide(folder / "slides" / f"{name}.tiff", number, mpp=mpp)
    quoted = EVIL.replace('"', '""')
    (folder / "slides.csv").write_text(
        f'slide,organ\nslides/one.tiff,"{quoted}"\nslides/two.tiff,x\nslides/bare.tiff,x\n'
    )
    document = {"name": "first", "cohorts": [{"name": "c", "table": "slides.csv"}], "splits": {}}
    (folder / "m.yaml").write_text(yaml.safe_dump(document))
    words = ("--workers", 1, "--set", "shards.samples_per_shard=15")
    run_here("build", folder / "m.yaml", "--out", folder / "first", *words).succeeded()
    verify(open_dataset(folder / "first"))
    (folder / "fix.csv").write_text("slide_id,mpp\nbare,0.5\n")
    more = ("--after", folder / "first", "--overrides", folder / "fix.csv")
    run_here("build", folder / "m.yaml", "--out", folder / "second", *words, *more).succeeded()
    (folder / "first" / "attempts").mkdir()
    attempt = {
        "group": 0,
        "host": "h",
        "time": 1.0,
        "error": "PrepError",
        "sentence": EVIL,
        "log": EVIL,
        "traceback": EVIL,
    }
    (folder / "first" / "attempts" / "group-000000-1.json").write_text(json.dumps(attempt))
    return folder


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[str]:
    """Both data sets served."""
    with serving(folder / "first", folder / "second") as address:
        yield address


def shard(folder: Path) -> str:
    return sorted((folder / "first" / "shards" / "train").glob("*.tar"))[0].name


def test_every_page_is_there_of_each_data_set_and_of_all_as_one(site: str) -> None:
    for key in ("first", "second", "all"):
        for page in PAGES:
            answer = get(f"{site}/d/{key}/{page}")
            assert answer.code == 200, (key, page, answer.text)
            assert "<h1>" in answer.text
    assert get(site).headers["location"] == "/d/all/"


def test_every_answer_forbids_what_is_not_from_here(site: str, folder: Path) -> None:
    for page in (
        "/d/first/",
        "/d/first/slides/one",
        "/d/first/slides/one/overview.jpg",
        "/static/style.css",
        "/nowhere",
        "/metrics",
    ):
        headers = get(site + page).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert {words for name, words in policy.items() if name.endswith("-src")} == {"'none'", "'self'"}
        assert policy["frame-ancestors"] == "'none'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
    chart = get(site + "/d/first/chart/progress.svg").headers
    assert chart["content-type"] == "image/svg+xml"
    assert chart["content-security-policy"].startswith("default-src 'none'")
    assert "sandbox" in chart["content-security-policy"]


def test_no_page_has_a_script_or_style_of_its_own_or_from_elsewhere(site: str, folder: Path) -> None:
    for page in (*PAGES, "slides/one", f"shards/train/{shard(folder)}"):
        text = get(f"{site}/d/first/{page}").text
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|https?://(?!www\.w3\.org)", text), page
        assert re.findall(r"<script[^>]*>", text) == ['<script src="/static/live.js" defer>'], page


def test_what_comes_from_tables_slides_and_logs_is_escaped(site: str) -> None:
    for page in ("slides/one", "attempts"):
        text = get(f"{site}/d/first/{page}").text
        assert EVIL not in text
        assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;&amp;" in text
    found = get(f"{site}/d/first/slides?q=%3Cscript%3E%22%27").text
    assert "<script>&#34;" not in found
    assert "&lt;script&gt;&#34;&#39;" in found


@pytest.mark.parametrize(
    "path",
    [
        "slides/..%2f..%2fcatalog.parquet",
        "slides/%2e%2e",
        "slides/../../../etc/passwd",
        "slides/one/..%2f..%2f..%2fcatalog.parquet",
        "slides/one/before-99.png",
        "slides/one/cloud-7.png",
        "slides/nobody",
        "shards/train/..%2f..%2fbuild.json",
        "shards/..%2fledger/group-000000.json",
        "shards/train/shard-999999-000.tar",
        "shards/train/shard-000000-000.tar/99999",
        "shards/train/shard-000000-000.tar/-1",
        "chart/..%2fx.svg",
        "chart/progress.svg?theme=../x",
    ],
)
def test_what_is_not_in_catalog_or_ledger_is_nowhere(site: str, path: str) -> None:
    answer = get(f"{site}/d/first/{path}")
    assert answer.code in (404, 422), answer.text
    assert b"PAR1" not in answer.body


def test_files_of_the_program_are_not_to_be_had_by_way_of_static(site: str) -> None:
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static//etc/passwd"):
        assert get(site + path).code == 404, path


def test_nothing_can_be_changed(site: str, folder: Path) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert get(f"{site}/d/first/", method=method).code == 405
    before = {file: file.stat().st_mtime_ns for file in (folder / "first").rglob("*")}
    for page in (*PAGES, "slides/one", "chart/mixing.svg", "quarantine.csv"):
        get(f"{site}/d/first/{page}")
    assert {file: file.stat().st_mtime_ns for file in (folder / "first").rglob("*")} == before


def test_under_another_name_it_does_not_answer(site: str) -> None:
    assert get(f"{site}/d/first/", {"Host": "evil.example"}).code == 421
    assert get(f"{site}/d/first/", {"Host": "localhost:1"}).code == 200
    assert get(f"{site}/d/first/", {"Host": "[::1]:1"}).code == 200


def test_with_a_token_nobody_else_looks(folder: Path) -> None:
    with serving(folder / "first", token="tökén") as address:
        page = f"{address}/d/first/slides"
        assert get(page).code == 401
        assert "one" not in re.sub(r"<[^>]*>", "", get(page).text).split()
        assert get(f"{page}?token=wrong").code == 401
        assert get(page, {"Cookie": "exaone_prep_dashboard=wrong"}).code == 401
        assert get(page, {"Authorization": "Bearer wrong"}).code == 401
        assert get(f"{address}/metrics").code == 401
        assert get(f"{address}/static/style.css").code == 200
        assert get(f"{address}/healthz").code == 200
        entered = get(f"{page}?q=one&token=t%C3%B6k%C3%A9n")
        assert entered.code == 303
        assert entered.headers["location"] == "/d/first/slides?q=one"
        cookie = entered.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert "tökén" not in cookie
        assert get(page, {"Cookie": cookie.split(";")[0]}).code == 200
        assert get(f"{address}//evil.example/?token=t%C3%B6k%C3%A9n").headers["location"].startswith("/evil.example")
    with serving(folder / "first", token="ascii") as address:
        assert get(f"{address}/metrics", {"Authorization": "Bearer ascii"}).code == 200


def image(answer: Answer) -> Any:
    assert answer.code == 200
    return np.asarray(Image.open(io.BytesIO(answer.body)))


def test_the_overlay_frames_the_patches_that_are_in_the_shards(site: str, folder: Path) -> None:
    overview = image(get(f"{site}/d/first/slides/one/overview.jpg"))
    over = image(get(f"{site}/d/first/slides/one/patches.png"))
    mask = image(get(f"{site}/d/first/slides/one/mask.png"))
    assert over.shape == (*overview.shape[:2], 4)
    assert mask.shape == over.shape
    scale = overview.shape[1] / 1024
    rows = [sample.row for sample in samples(folder / "first") if sample.row["slide_id"] == "one"]
    assert rows
    filled = over[..., 3] == 70
    expected = np.zeros(filled.shape, dtype=bool)
    for row in rows:
        middle_x, middle_y = (round((row[axis] + 128) * scale) for axis in ("x", "y"))
        assert filled[middle_y, middle_x], row
        top, left = round(row["y"] * scale), round(row["x"] * scale)
        side = round(256 * scale) + 1
        expected[top : top + side, left : left + side] = True
    assert not (filled & ~expected).any(), "nothing is filled where no sample is"


def test_patches_before_and_after_are_the_slides_own(site: str, folder: Path) -> None:
    stored = {
        hashlib.sha256(sample.image).hexdigest()
        for sample in samples(folder / "first")
        if sample.row["slide_id"] == "one"
    }
    text = get(f"{site}/d/first/slides/one").text
    after = re.findall(r'src="([^"]*after-\d+\.jpg)"', text)
    assert after
    for path in after:
        assert hashlib.sha256(get(site + path).body).hexdigest() in stored
    assert image(get(site + after[0].replace("after", "before").replace(".jpg", ".png"))).shape == (256, 256, 3)


def test_samples_of_a_shard_are_read_by_their_offsets(site: str, folder: Path) -> None:
    name = shard(folder)
    page = get(f"{site}/d/first/shards/train/{name}").text
    paths = re.findall(rf'src="(/d/first/shards/train/{name}/(\d+))"', page)
    index = pq.ParquetFile(folder / "first" / "index" / "train" / "group-000000.parquet").read_row_group(0).to_pylist()
    assert len(paths) == min(24, len(index))
    data = (folder / "first" / "shards" / "train" / name).read_bytes()
    for path, number in paths[:5]:
        row = index[int(number)]
        assert get(site + path).body == data[row["image_offset"] : row["image_offset"] + row["image_size"]]
    assert hashlib.sha256(data).hexdigest() in page
    assert "no problem" in page
    other = get(f"{site}/d/first/shards/train/{name}?draw=1").text
    if len(index) > 24:
        assert re.findall(rf'src="(/d/first/shards/train/{name}/(\d+))"', other) != paths


def test_a_slide_that_was_mended_counts_once_in_all_as_one(site: str) -> None:
    rows = re.findall(r'<th scope="row"><a href="/d/(\w+)/slides/(\w+)"', get(f"{site}/d/all/slides").text)
    assert sorted(rows) == [("first", "one"), ("first", "two"), ("second", "bare")]
    assert "No slide is set aside" in get(f"{site}/d/all/quarantine").text
    assert "no_mpp" in get(f"{site}/d/first/quarantine").text
    assert "second</a>" in get(f"{site}/d/first/slides/bare").text


def test_the_list_to_be_mended_is_as_it_is_filtered(site: str) -> None:
    answer = get(f"{site}/d/first/quarantine.csv?reason=no_mpp")
    assert answer.headers["content-type"].startswith("text/csv")
    assert 'filename="quarantine-first.csv"' in answer.headers["content-disposition"]
    assert answer.text.splitlines()[1].startswith("bare,,,c,no_mpp,")
    assert len(get(f"{site}/d/first/quarantine.csv?reason=not_he").text.splitlines()) == 1


def test_charts_are_svg_without_scripts_for_light_and_dark(site: str) -> None:
    for name in ("progress", "sizes", "mixing", "vectors", "spread"):
        both = [get(f"{site}/d/first/chart/{name}.svg?theme={theme}").text for theme in ("light", "dark")]
        assert both[0] != both[1]
        for text in both:
            assert text.lstrip().startswith("<?xml")
            assert "<script" not in text
    assert get(f"{site}/d/first/chart/unknown.svg").code == 404


def metrics(site: str) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(get(f"{site}/metrics").text)}


def test_metrics_are_named_by_the_conventions_and_name_no_slide(site: str) -> None:
    families = metrics(site)
    text = get(f"{site}/metrics").text
    assert len(families) > 15
    for name, family in families.items():
        assert re.fullmatch(r"exaone_prep_[a-z_]+[a-z]", name)
        assert family.documentation.endswith(".")
        assert family.type in ("gauge", "counter")
        assert not re.search(r"_(kb|mb|ms|minutes|hours|percent)$", name), "base units"
        for sample in family.samples:
            assert sample.labels["dataset"] in ("first", "second")
            assert (family.type == "counter") == sample.name.endswith("_total")
    assert not re.search(r'"(one|two|bare)"', text)


def test_metrics_say_what_the_pages_say(site: str) -> None:
    families = metrics(site)
    done = {
        s.labels["dataset"]: s.value for s in families["exaone_prep_slides"].samples if s.labels["outcome"] == "done"
    }
    assert done == {"first": 2, "second": 1}
    state = [s.labels["state"] for s in families["exaone_prep_state"].samples if s.value == 1]
    assert state == ["complete", "complete"]
    aside = [
        (s.labels["dataset"], s.labels["reason"]) for s in families["exaone_prep_quarantined_slides"].samples if s.value
    ]
    assert aside == [("first", "no_mpp")]


PROMQL_WORDS = frozenset(
    (
        "sum",
        "by",
        "on",
        "and",
        "or",
        "unless",
        "rate",
        "increase",
        "max_over_time",
        "time",
        "max",
        "min",
        "ignoring",
        "bool",
    )
)


def metric_names(expression: str) -> set[str]:
    """What a PromQL expression queries: identifiers that are no word of the language, outside labels and ranges."""
    assert expression.count("(") == expression.count(")")
    assert expression.count("{") == expression.count("}")
    bare = re.sub(r"\{[^{}]*\}|\[[^\[\]]*\]|\"[^\"]*\"", "", expression)
    bare = re.sub(r"\b(by|on|ignoring|without)\s*\([^()]*\)", "", bare)
    return set(re.findall(r"\b[a-zA-Z_:][\w:]*\b", re.sub(r"\b\d[\w.]*\b", "", bare))) - PROMQL_WORDS


def label_names(expression: str) -> dict[str, set[str]]:
    """Labels by which each metric is selected."""
    found: dict[str, set[str]] = {}
    for name, labels in re.findall(r"([a-zA-Z_:][\w:]*)\{([^{}]*)\}", expression):
        found.setdefault(name, set()).update(re.findall(r"(\w+)\s*(?:=~?|!=|!~)\s*\"", labels))
    return found


def expressions() -> list[tuple[str, str]]:
    rules = yaml.safe_load((ROOT / "docker" / "alerts.yaml").read_text())
    board = json.loads((ROOT / "docker" / "grafana" / "exaone-prep.json").read_text())
    found = [(rule["alert"], rule["expr"]) for group in rules["groups"] for rule in group["rules"]]
    found += [(panel["title"], target["expr"]) for panel in board["panels"] for target in panel["targets"]]
    variables = [("variable", one["query"].split("(")[1].split(",")[0]) for one in board["templating"]["list"]]
    return found + variables


def test_every_metric_that_a_panel_or_a_rule_asks_for_exists_with_its_labels(site: str) -> None:
    families = metrics(site)
    exist = {name + ("_total" if family.type == "counter" else ""): family for name, family in families.items()}
    assert len(expressions()) > 20
    for where, expression in expressions():
        names = metric_names(expression)
        assert names, where
        assert names <= set(exist), where
        for name, labels in label_names(expression).items():
            known = {label for sample in exist[name].samples for label in sample.labels} | {"dataset"}
            assert labels <= known, (where, name)


def test_the_check_of_metrics_would_find_one_that_does_not_exist() -> None:
    assert metric_names('sum by (dataset) (rate(a_b_total{x="c_d"}[5m])) > 0.1 * e_f + 2e10') == {"a_b_total", "e_f"}
    assert label_names('a{x=~"$y", z!="1"} + b') == {"a": {"x", "z"}}


def test_there_are_rules_for_stalled_failing_and_disk_with_words() -> None:
    (group,) = yaml.safe_load((ROOT / "docker" / "alerts.yaml").read_text())["groups"]
    assert [rule["alert"] for rule in group["rules"]] == ["BuildStalled", "BuildFailing", "DiskWillBeFull"]
    for rule in group["rules"]:
        assert {"summary", "action"} == set(rule["annotations"])
        assert "{{ $labels.dataset }}" in rule["annotations"]["summary"]


def test_the_pictures_of_the_documentation_are_those_that_the_tool_takes() -> None:
    tool = (ROOT / "tools" / "screenshots.py").read_text(encoding="utf-8")
    taken = sorted(f"dashboard-{name}.png" for name in re.findall(r"take\(browser, [^,]*, \"(\w+)\"", tool))
    assert len(taken) == 9
    assert sorted(file.name for file in (ROOT / "docs" / "pictures").glob("dashboard-*")) == taken
    text = (ROOT / "docs" / "dashboard.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"\]\(pictures/([\w.-]+)\)", text)) == taken


def test_metrics_are_all_described(site: str) -> None:
    text = (ROOT / "docs" / "dashboard.md").read_text(encoding="utf-8")
    for name, family in metrics(site).items():
        assert f"`{name.removeprefix('exaone_prep_')}{'_total' if family.type == 'counter' else ''}`" in text, name


def test_a_data_set_that_is_not_there_yet_is_said_and_comes(folder: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "later") as address:
        answer = get(f"{address}/d/later/")
        assert answer.code == 503
        assert "There is no data set at" in answer.text
        assert get(f"{address}/d/nowhere/").code == 404
        assert get(f"{address}/metrics").code == 200
        (tmp_path / "later").symlink_to(folder / "first")
        end = time.monotonic() + 30
        while get(f"{address}/d/later/").code != 200:
            assert time.monotonic() < end
            time.sleep(0.2)


def test_without_the_extra_one_sentence_says_what_to_install(folder: Path) -> None:
    code = (
        "import sys, importlib.util as util; find = util.find_spec; sys.argv = ['exaone-prep', 'dashboard', 'X']; "
        "util.find_spec = lambda name, *more: None if name == 'uvicorn' else find(name, *more); "
        "from exaone_prep.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "pip install 'exaone-prep[dashboard]'" in line


def test_watching_on_a_terminal_needs_no_extra() -> None:
    code = (
        "import sys, exaone_prep.commands.watch; "
        "print({'fastapi', 'jinja2', 'matplotlib', 'prometheus_client', 'uvicorn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_port_that_is_taken_is_said_in_one_sentence(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = run("dashboard", folder / "first", "--port", taken.getsockname()[1])
    assert "choose another --port" in ended.sentence(1)


def test_status_that_is_watched_ends_with_a_complete_data_set(folder: Path) -> None:
    done = run_here("status", folder / "first", "--watch").succeeded()
    assert done.out.startswith("complete: groups 1/1, patches ")
    assert "Choose" in run_here("status", folder / "first", "--watch", "--json").sentence(2)
    assert "no data set" in run_here("status", folder / "nowhere", "--watch").sentence(2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_and_ends_when_it_is_told_to(folder: Path, number: int) -> None:
    process = start("dashboard", str(folder / "first"), str(folder / "nowhere"), "--port", "0")
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
        assert get(f"{address}d/first/").code == 200
        assert get(f"{address}d/first/", method="HEAD").body == b""
        process.send_signal(number)
        ended = finish(process, timeout_s=20)
    finally:
        process.kill()
        process.communicate()
    assert ended.code == 0, ended.err
    (line,) = ended.err.splitlines()
    assert "There is no data set at" in line
