"""Configurations: recipes, files and flags, and which values are refused."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import typer.main
from hypothesis import given
from hypothesis import strategies as st

from vggnet.architectures import ARCHITECTURES
from vggnet.cli import app
from vggnet.config import SECTIONS, Config, ModelConfig, differences, flatten, list_keywords
from vggnet.errors import ConfigError
from vggnet.model.vgg import padded_size
from vggnet.recipes import (
    RECIPES,
    build_config,
    load_overrides,
    nest_settings,
    resolve_config,
    unflatten,
)


def test_article_recipe_is_the_articles_training() -> None:
    """The recipe `article` has the values of the article's script."""
    config = resolve_config({"recipe": "article"})
    assert config.model.architecture == "vgg-mini"
    assert (config.model.dropout, config.model.batch_norm) == (0.5, False)
    assert config.model.initialization == "torch"
    assert (config.data.mean, config.data.std) == ((0.5,), (0.5,))
    train = config.train
    assert (train.epochs, train.global_batch_size) == (10, 128)
    assert (train.optimizer, train.peak_lr, train.betas) == ("adam", 1e-3, (0.9, 0.999))
    assert (train.schedule, train.weight_decay, train.label_smoothing) == ("constant", 0, 0)


def test_every_setting_is_a_keyword_with_the_name_of_its_flag() -> None:
    """What the command line spells `--batch-size` is `batch_size`; tables work beside it."""
    command = typer.main.get_command(app).commands["train"]  # type: ignore[attr-defined]
    flags = {
        one.opts[0].removeprefix("--").replace("-", "_")
        for one in command.params
        if str(one.rich_help_panel).startswith("Settings: ")
    }
    assert list_keywords().keys() == flags
    nested = {
        "model": {"architecture": "vgg-a", "width": 0.5},
        "train": {"epochs": 2, "global_batch_size": 64, "seed": 1},
    }
    flat = {"model": "vgg-a", "width": 0.5, "epochs": 2, "batch_size": 64, "seed": 1}
    assert nest_settings(flat) == nested
    assert nest_settings(nested) == nested
    assert nest_settings({"train": {"epochs": 5, "seed": 1}, "epochs": 2}) == {
        "train": {"epochs": 2, "seed": 1}
    }
    assert nest_settings({"global_batch_size": 64}) == nest_settings({"batch_size": 64})


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("epoch", "epochs"),
        ("batchsize", "batch_size"),
        ("learning_rate", "lr"),
        ("ouput", "output"),
    ],
)
def test_an_unknown_keyword_names_the_nearest(name: str, nearest: str) -> None:
    """A typing error in a notebook costs no search in the documentation."""
    with pytest.raises(ConfigError, match=rf"unknown setting '{name}'; .*'?{nearest}"):
        nest_settings({name: 1}, ["output"])


def test_a_configuration_shows_what_differs_from_the_defaults() -> None:
    """One line, with the names that `vggnet.train` takes."""
    found = Config.model_validate({"train": {"epochs": 2}, "model": {"architecture": "vgg-a"}})
    assert repr(found) == "Config(recipe='fast', model='vgg-a', epochs=2.0)"


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_survive_being_stored(recipe: str) -> None:
    """A configuration written to config.json reads back equal."""
    config = resolve_config({"recipe": recipe})
    assert build_config(json.loads(config.model_dump_json())) == config
    assert resolve_config(json.loads(config.model_dump_json())) == config


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"train": {"peek_lr": 1}}, "'train.peek_lr'; did you mean 'peak_lr'"),
        ({"modle": {}}, "'modle'; did you mean 'model'"),
        ({"model": {"architecture": "vgg-dd"}}, "did you mean 'vgg-d'"),
        ({"recipe": "fats"}, "did you mean 'fast'"),
        ({"recipe": ["fast"]}, "unknown recipe"),
        ({"train": {"global_batch_size": 0}}, "train.global_batch_size"),
        ({"train": {"epochs": -1}}, "train.epochs"),
        ({"train": {"epochs": float("nan")}}, "train.epochs"),
        ({"train": {"epochs": float("inf")}}, "train.epochs"),
        ({"train": {"device": "gpu"}}, "unknown device 'gpu'"),
        ({"train": {"betas": (0.9,)}}, "train.betas"),
        ({"train": {"optimizer": "lion"}}, "'adam', 'adamw' or 'muon'"),
        ({"train": 3}, "train:"),
        ({"model": {"stages": "32,x"}}, "unknown layer 'x'"),
        ({"model": {"stages": "lrn/32"}}, "start with a convolution"),
        ({"model": {"stages": "32,lrn,32/32"}}, "lrn can only end a stage"),
        ({"model": {"stages": "32,lrn,lrn/32"}}, "lrn can only end a stage"),
        ({"model": {"stages": "32/32,lrn"}}, "lrn cannot end the last stage"),
        ({"model": {"stages": ""}}, "model"),
        ({"model": {"architecture": "custom"}}, "needs both stages and hidden"),
        ({"model": {"hidden": "0"}}, "at least 1"),
        ({"data": {"std": (0.0,)}}, "data.std"),
        ({"model": {"stages": "8/" * 400 + "8"}}, "401 stages; use at most 10"),
        ({"model": {"stages": [[8]] * 11}}, "11 stages"),
        ({"model": {"stages": "99999999999"}}, "unknown layer '99999999999'"),
        ({"model": {"stages": [[65_537]]}}, "unknown layer 65537"),
        ({"model": {"stages": "conv1-" + "9" * 5000}}, "unknown layer 'conv1-99999999999999…'"),
        ({"model": {"hidden": "65537"}}, "at most 65536"),
        ({"model": {"hidden": "9" * 5000}}, "model.hidden"),
        ({"data": {"dataset": "a\0b"}}, "data.dataset: must be valid Unicode without NUL"),
        ({"data": {"data_dir": "a\0b"}}, "data.data_dir"),
        ({"data": {"data_dir": "a\udcffb"}}, "data.data_dir"),
        ({"recipe": "fast\0"}, "unknown recipe"),
    ],
)
def test_bad_settings_are_named(values: dict[str, object], words: str) -> None:
    """The error names every refused setting, and the most similar valid one."""
    with pytest.raises(ConfigError) as caught:
        resolve_config(values)
    assert words in str(caught.value)


def test_later_layers_win() -> None:
    """Flags override a file, which overrides the recipe."""
    config = resolve_config(
        {"recipe": "article", "train": {"epochs": 3, "seed": 1}}, {"train": {"epochs": 4}}
    )
    assert (config.train.epochs, config.train.seed, config.recipe) == (4, 1, "article")
    assert config.train.peak_lr == 1e-3


@pytest.mark.parametrize("value", [3, "vgg-a", None, [1]])
def test_a_section_is_a_table(value: object) -> None:
    """`model = "vgg-a"` in a file is refused, with and without flags over it."""
    for layers in ([{"model": value}], [{"model": value}, {"model": {}}]):
        with pytest.raises(ConfigError, match="model: must be a table of settings"):
            resolve_config(*layers)


def test_files_are_read(tmp_path: Path) -> None:
    """TOML and JSON files give the same settings."""
    toml, plain = tmp_path / "a.toml", tmp_path / "a.json"
    toml.write_text('recipe = "article"\n[model]\nstages = [[8], ["conv1-16"]]\nhidden = [4]\n')
    plain.write_text(
        '{"recipe": "article", "model": {"stages": [[8], ["conv1-16"]], "hidden": [4]}}'
    )
    assert resolve_config(load_overrides(toml)) == resolve_config(load_overrides(plain))
    assert resolve_config(load_overrides(toml)).model.layers.stages == ((8,), ("conv1-16",))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.toml", b"= 3"),
        ("a.json", b"{"),
        ("a.json", b"[1]"),
        ("a.json", b"[" * 100_000),
        ("a.toml", b"\xff\xfe"),
        ("missing.toml", None),
        ("folder.toml", b""),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, name: str, content: bytes | None) -> None:
    """A file without settings is a ConfigError, whatever it contains."""
    path = tmp_path / name
    if name == "folder.toml":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=name):
        load_overrides(path)


words = st.text(max_size=12) | st.integers() | st.floats() | st.booleans() | st.none()
values = st.recursive(
    words, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner)
)
keys = st.sampled_from([name for one in SECTIONS.values() for name in one.model_fields]) | st.text()


@given(
    st.dictionaries(
        st.sampled_from(["recipe", "model", "data", "train"]) | st.text(max_size=8),
        values | st.dictionaries(keys, values, max_size=4),
        max_size=4,
    )
)
def test_any_table_gives_a_config_or_a_config_error(table: dict[str, object]) -> None:
    """No table of settings ends in another exception."""
    with contextlib.suppress(ConfigError):
        assert isinstance(resolve_config(table), Config)


@given(st.integers(1, 600), st.sampled_from(["8", "64", "8,lrn", "conv1-8"]))
def test_a_network_has_as_many_stages_as_images_have_pixels(count: int, stage: str) -> None:
    """Each stage halves the image: more than the largest image allows are refused."""
    with contextlib.suppress(ConfigError):
        stages = "/".join([stage] * count)
        model = resolve_config({"model": {"stages": stages, "hidden": "8"}}).model
        assert padded_size(model, 28) <= 1024


def test_stages_read_the_same_from_text_and_lists() -> None:
    """`--stages "32,lrn/64,64"` equals the list of lists in a file."""
    assert ModelConfig(stages="32, lrn/64,64").stages == ((32, "lrn"), (64, 64))  # type: ignore[arg-type]
    assert ModelConfig(architecture="vgg-d").layers == ARCHITECTURES["vgg-d"]


def test_differences_are_named_by_section() -> None:
    """Each differing setting is given with both values, unless it or its section is ignored."""
    before = resolve_config({"recipe": "article"})
    now = resolve_config({"recipe": "article", "train": {"seed": 1}, "data": {"data_dir": "x"}})
    assert differences(before, before) == []
    found = differences(before, now)
    assert [str(one) for one in found] == [
        "data.data_dir was None and is now x",
        "train.seed was 0 and is now 1",
    ]
    assert differences(before, now, {"data", "train.seed"}) == []


@pytest.mark.parametrize("recipe", RECIPES)
def test_flattened_settings_are_whole(recipe: str) -> None:
    """`unflatten` undoes `flatten`; settings that are missing take their defaults."""
    config = resolve_config({"recipe": recipe})
    assert unflatten(flatten(config)) == config
    assert unflatten({}) == Config()


TEXT = st.text(st.sampled_from("a/.\0\ud800\udcff\n") | st.characters(), max_size=6)


@given(
    st.sampled_from(
        ["data.dataset", "data.data_dir", "train.device", "model.architecture", "model.stages"]
    ),
    TEXT,
)
def test_any_text_can_be_stored_or_is_refused(name: str, text: str) -> None:
    """A setting that is accepted can be a file name, and survives being written to a file."""
    with contextlib.suppress(ConfigError):
        config = unflatten({name: text})
        text.encode()
        assert "\0" not in text
        assert resolve_config(json.loads(config.model_dump_json())) == config
