"""The configuration: defaults of DINO's ViT-B/16, strict, and one sentence for whatever is wrong with it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from exaone_train.config import MAY_CHANGE, Config, differences
from exaone_train.config_file import load_config
from exaone_train.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def written(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text)
    return path


def test_the_configuration_of_vit_b_16_says_nothing_but_the_defaults() -> None:
    assert load_config(CONFIGS / "vit_b16.yaml") == Config()


def test_the_configuration_of_vit_b_16_writes_every_field_out() -> None:
    text = (CONFIGS / "vit_b16.yaml").read_text()
    fields = [name for part in Config.model_fields.values() for name in type(part.default).model_fields]
    assert [name for name in fields if f"{name}:" not in text] == []


def test_all_configurations_can_be_read() -> None:
    paths = sorted(CONFIGS.glob("*.yaml"))
    assert [path.name for path in paths] == ["miniature.yaml", "vit_b16.yaml", "vit_tiny_cpu.yaml"]
    assert {load_config(path).run.accelerator for path in paths} == {"auto", "cpu"}


def test_an_empty_file_and_empty_sections_are_the_defaults(tmp_path: Path) -> None:
    assert load_config(written(tmp_path, "")) == load_config(written(tmp_path, "data:\nrun: {}\n")) == Config()


def test_settings_change_single_fields_by_name_alone_or_with_the_section(tmp_path: Path) -> None:
    path = written(tmp_path, "data: {batch_size: 64}")
    config = load_config(path, ["max_steps=20", "data.on_damage=skip", "learning_rate=1e-3", "local_scale=[0.1, 0.2]"])
    assert (config.run.max_steps, config.data.on_damage, config.data.batch_size) == (20, "skip", 64)
    assert config.optimizer.learning_rate == 0.001
    assert config.crops.local_scale == (0.1, 0.2)


def test_every_field_is_found_by_its_name_alone() -> None:
    names = Counter(name for part in Config.model_fields.values() for name in type(part.default).model_fields)
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize(
    ("text", "settings", "said"),
    [
        ("data: {batchsize: 3}", [], "data.batchsize: Extra inputs are not permitted"),
        ("data: {batch_size: 0}", [], "data.batch_size: Input should be greater than or equal to 1"),
        ("run: {precision: 16-mixed}", [], "run.precision: Input should be '32-true' or 'bf16-mixed'"),
        ("crops: {local_size_px: 100}", [], "crops of 100 px are not whole tokens of 16 px"),
        ("crops: {local_scale: [0.4, 0.2]}", [], "goes from the smaller to the larger share, not from 0.4 to 0.2"),
        ("data: 3", [], "is not a table of the sections data, crops, model, dino, optimizer, run"),
        ("- data", [], "is not a table of the sections"),
        ("data: {batch_size: [", [], "cannot be read"),
        ("", ["batchsize=3"], "--set batchsize=3: there is no field 'batchsize' in any of the sections"),
        ("", ["batch_size"], "--set batch_size: write section.field=value"),
        ("", ["date.batch_size=3"], "write section.field=value with a section of data, crops,"),
        ("", ["batch_size=[3"], "--set batch_size=[3: the value is no YAML"),
        ("", ["batch_size=three"], "data.batch_size: Input should be a valid integer"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path: Path, text: str, settings: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, text), settings)
    sentence = str(caught.value)
    assert said in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert "Value error" not in sentence


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read: .*No such file"):
        load_config(tmp_path / "none.yaml")


def test_ranks_and_parts_have_equal_shares_of_a_batch() -> None:
    config = Config.model_validate({"data": {"batch_size": 24}, "run": {"accumulate": 3}})
    assert config.per_rank(4) == 6
    for ranks in (5, 6):
        with pytest.raises(
            ConfigError, match=f"A batch of 24 images cannot be divided equally among {ranks} processes"
        ):
            config.per_rank(ranks)


def test_a_run_that_goes_on_may_change_how_it_is_computed_but_not_what() -> None:
    begun = Config().model_dump(mode="json")
    computed = {"data": {"decode_threads": 9}, "run": {"log_every": 1, "precision": "32-true", "accumulate": 2}}
    assert differences(begun, Config.model_validate(computed)) == []
    other = {"data": {"batch_size": 512}, "crops": {"local_scale": (0.1, 0.2)}, "run": {"max_steps": 9}}
    assert differences(begun, Config.model_validate(other)) == [
        "data.batch_size was 1024 and is 512 now",
        "crops.local_scale was [0.05, 0.25] and is [0.1, 0.2] now",
        "run.max_steps was 500000 and is 9 now",
    ]


def test_a_field_that_an_older_checkpoint_does_not_have_is_a_difference() -> None:
    begun = Config().model_dump(mode="json")
    del begun["dino"]["centre_momentum"]
    assert differences(begun, Config()) == ["dino.centre_momentum was null and is 0.9 now"]


def test_what_may_change_are_fields() -> None:
    assert {name for part in Config.model_fields.values() for name in type(part.default).model_fields} >= MAY_CHANGE
