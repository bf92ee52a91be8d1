"""What a build costs: requests and money, by prices that a person gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from exaone_prep.cost import Prices, cost_of, load_prices
from exaone_prep.errors import ManifestError
from exaone_prep.store_requests import StoreRequests, frame_requests, group_requests
from tests.commandline import run_here
from tests.smallslides import small_slides

EXAMPLE = Path(__file__).parents[1] / "docs" / "prices.example.yaml"
MB, GB = 10**6, 10**9


def test_requests_of_a_group_are_those_of_its_shards_slides_and_time() -> None:
    found = group_requests(shards=50, shard_bytes=20 * MB, staged=[], seconds=0)
    assert found == StoreRequests(put=50 + 4, get=2 * 50 + 1, list=0)
    in_parts = group_requests(shards=50, shard_bytes=200 * MB, staged=[], seconds=0)
    assert in_parts.put == 50 * (6 + 2) + 4, "six parts of 32 MiB, begun and completed"
    assert in_parts.get == 50 * (6 + 1) + 1
    with_slides = group_requests(shards=50, shard_bytes=20 * MB, staged=[GB, GB], seconds=0)
    assert with_slides.get - found.get == 2 * (60 + 1), "pieces of 16 MiB, and a look at the size"
    longer = group_requests(shards=50, shard_bytes=20 * MB, staged=[], seconds=600)
    assert (longer.put - found.put, longer.get - found.get) == (30, 120), "heartbeats, and looks for a stop"
    assert frame_requests(groups=544, remote_slides=0).get < 4 * 544
    assert frame_requests(groups=544, remote_slides=1000).get > 20_000, "what a catalog of remote slides takes"


def test_money_is_the_sum_of_what_was_asked_for() -> None:
    prices = Prices(
        currency="EUR", put_per_1000=5, get_per_1000=1, storage_per_gb_month=0.02, core_hour=0.1, egress_per_gb=0.05
    )
    cost = cost_of(
        prices,
        requests=StoreRequests(put=1900, get=4000, list=100),
        staged_bytes=60 * GB,
        shard_bytes=40 * GB,
        cpu_hours=30,
    )
    assert cost.as_dict() == {
        "currency": "EUR", "compute": 3.0, "requests": 14.0, "egress": 5.0, "once": 22.0, "per_month": 0.8,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read"),
        ("a: [", "cannot be read"),
        ("currency: EUR", "put_per_1000: field required"),
        ("[]", "the file: input should be"),
        (EXAMPLE.read_text().replace("0.05 ", "-1 "), "core_hour: input should be greater than or equal to 0"),
        (EXAMPLE.read_text() + "gpu_hour: 3", "gpu_hour: extra inputs are not permitted"),
    ],
    ids=["missing", "no YAML", "a price lacks", "a list", "negative", "an unknown price"],
)
def test_a_price_file_that_is_wrong_is_said_in_a_sentence(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "prices.yaml").write_text(text)
    with pytest.raises(ManifestError) as caught:
        load_prices(tmp_path / "prices.yaml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_estimate_says_what_a_build_costs_by_the_example_prices(tmp_path: Path) -> None:
    small_slides(tmp_path / "slides", 1)
    words = ("estimate", "--slides", f"{tmp_path}/slides/*.tiff", "--workers", 1)
    assert "cost" not in run_here(*words).succeeded().out
    text = run_here(*words, "--prices", EXAMPLE).succeeded().out
    assert "staged bytes  0\n" in text
    assert " PUT, " in text
    assert text.splitlines()[-1].startswith("cost ")
    assert "EUR" in text
    assert "prices.yaml cannot be read" in run_here(*words, "--prices", tmp_path / "prices.yaml").sentence(2)
