"""Configurations: every field can be set, and every mistake is named."""

from __future__ import annotations

import dataclasses
import re
import runpy

import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.run_config import RunConfig, field_names, from_dict, to_dict
from launch.config_help import config_help
from tests.launch.processes import ROOT, launch, refused


def changed(**values):
    """The default configuration's dict with dotted fields replaced (`__` stands for a dot)."""
    tree = to_dict(RunConfig())
    for name, value in values.items():
        *groups, field = name.split("__")
        node = tree
        for group in groups:
            node = node[group]
        node[field] = value
    return tree


def test_a_config_survives_the_way_to_a_dict_and_back():
    config = from_dict(changed(seed=3, train__steps=7, control__mixture__ks=[2, 3, 4, 5]))
    assert config.seed == 3 and config.train.steps == 7
    assert from_dict(to_dict(config)) == config
    assert from_dict({}) == RunConfig()


def test_no_field_bears_the_name_of_a_dict_method():
    names = {part for name in field_names() for part in name.split(".")}
    assert not names & set(dir(dict))


def test_all_mistakes_are_named_in_one_message_with_near_misses():
    wrong = changed(train__steps=0, dtype="fp16", seed=-1, drift__rulers=["int4"])
    with pytest.raises(UserError) as error:
        from_dict(wrong)
    for part in ("train.steps = 0", "fp16", "seed = -1", "int4"):
        assert part in str(error.value)
    with pytest.raises(UserError, match="train.stepz; did you mean train.steps") as error:
        from_dict({"train": {"stepz": 3}, "lora": {"rank": "two"}})
    assert "lora.rank = 'two' is not a whole number" in str(error.value)


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.py")), ids=lambda f: f.stem)
def test_every_config_that_we_ship_holds_every_field_and_is_valid(file):
    config = from_dict(runpy.run_path(str(file))["get_config"]().to_dict())
    assert sorted(field_names()) == sorted(_leaves(to_dict(config)))
    assert dataclasses.is_dataclass(config.train.mixture)


def _leaves(tree: dict, prefix: str = "") -> list[str]:
    return [
        name
        for key, value in tree.items()
        for name in (
            _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
        )
    ]


def test_auto_dtypes_are_decided_by_the_backend_and_others_stay():
    for backend, dtype in (("cpu", "float32"), ("gpu", "bfloat16"), ("tpu", "bfloat16")):
        config = from_dict({}).on(backend)
        assert (config.dtype, config.train.dtype) == (dtype, dtype)
        chosen = from_dict({"dtype": "bfloat16", "train": {"dtype": "float32"}})
        assert chosen.on(backend) == chosen
        assert chosen.on(backend, bfloat16=True) == chosen
    fast = from_dict({}).on("cpu", bfloat16=True)
    assert (fast.dtype, fast.train.dtype) == ("float32", "bfloat16")


def test_flags_that_make_no_sense_end_in_one_line(tmp_path):
    workdir = f"--workdir={tmp_path / 'w'}"
    refused(launch("study", workdir, "--config.train.stepz=3"), "config.train.steps")
    refused(launch("study", workdir, "--config.train.steps=many"), "many")
    refused(launch("study", workdir, "--config=nowhere.py"), "nowhere.py")
    refused(launch("study"), "--workdir")
    refused(launch("evaluate", workdir, "--suites=control,tricks"), "tricks", "drift")
    refused(launch("report", f"--workdir={tmp_path}"), "metrics.json")
    assert not (tmp_path / "w").exists()


def test_every_field_is_listed_with_its_value_default_bound_and_meaning():
    text = config_help(from_dict({"train": {"steps": 7}, "drift": {"rulers": ["bf16"]}}))
    lines = dict(re.findall(r"^--config\.([\w.]+)=(.*)$", text, re.M))
    assert list(lines) == field_names()
    assert lines["train.steps"] == "7 (default 400)" and lines["seed"] == "0 (default)"
    assert lines["revision"] == '"" (default)' and lines["lora.rank"] == "16 (default)"
    assert lines["drift.rulers"].startswith("\"('bf16',)\" (default \"('int8_channel', ")
    assert "\n    training steps of the tuned adapter; from 1 to 10000000\n" in text
    assert all(len(line) <= 100 for line in text.splitlines() if line.startswith(" "))


def test_help_config_shows_what_is_given():
    result = launch("finetune", "--help_config", "--config.train.steps=7", "--model=mine")
    assert result.returncode == 0, result.stderr
    assert "--config.train.steps=7 (default 400)\n" in result.stdout
    assert "--config.model=mine (default smollm2-135m-instruct)\n" in result.stdout
    refused(launch("finetune", "--help_config", "--config.train.steps=0"), "train.steps = 0")


def test_help_shows_the_programs_own_flags_with_examples():
    for program in ("study", "finetune", "evaluate", "score", "report", "benchmark"):
        result = launch(program, "--help")
        assert result.returncode == 0
        assert f"python -m launch.{program}" in result.stdout
        assert "--workdir" in result.stdout or program == "score"
        assert len(result.stdout.splitlines()) < 60


def test_a_value_apart_from_its_flag_asks_for_no_help():
    asked = ("--model", "/nowhere", "--prompt", "?", "--words", "help")
    refused(launch("score", *asked), "/nowhere")
    refused(launch("score", "help"), "not understood: help; see --help")
