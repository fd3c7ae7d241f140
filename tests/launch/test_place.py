"""Checkpoints in a place of their own outlast a run's folder; a mark says what trained them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.files import MARK
from antiimit_jax.training.loop import _Stepper
from launch import place
from tests.launch.small_runs import results, run_finetune, small_config


@pytest.fixture(scope="module")
def trained(model, shared, tmp_path_factory) -> Path:
    """A folder with a finished run, "run", and its checkpoints, "kept"."""
    root = tmp_path_factory.mktemp("placed")
    run_finetune(small_config(model), root / "run", checkpoints=str(root / "kept"))
    return root


@pytest.fixture
def steps(monkeypatch) -> list[int]:
    """One entry for each step that is computed from now on."""
    taken, step = [], _Stepper.__call__
    monkeypatch.setattr(_Stepper, "__call__", lambda *given: taken.append(1) or step(*given))
    return taken


def test_training_goes_on_where_the_folder_of_the_run_is_gone(model, trained, tmp_path, steps):
    shutil.copytree(trained / "kept", tmp_path / "kept")
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {MARK, "tuned", "placebo"}
    assert not list((trained / "run" / "checkpoints").glob("*/"))
    shutil.rmtree(tmp_path / "kept" / "tuned" / "2")  # stopped after its first step of two
    shutil.rmtree(tmp_path / "kept" / "placebo")
    config = small_config(model, **{"control.n_items": 8})  # evaluation may differ
    run_finetune(config, tmp_path / "run", checkpoints=str(tmp_path / "kept"))
    assert len(steps) == 2
    weights = lambda run: {k: v for k, v in results(run).items() if k.endswith(".safetensors")}
    assert weights(tmp_path / "run") == weights(trained / "run") != {}


def test_a_run_with_its_adapters_needs_no_checkpoints(model, trained, tmp_path, steps):
    shutil.copytree(trained / "run", tmp_path / "run")
    run_finetune(small_config(model), tmp_path / "run", checkpoints=str(tmp_path / "none"))
    assert not steps and not (tmp_path / "none").exists()


def test_a_run_keeps_to_the_place_of_its_checkpoints(model, trained, tmp_path, steps):
    shutil.copytree(trained / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "placebo")
    config, kept = small_config(model), str(trained / "kept")
    for given in (None, str(tmp_path / "other")):
        with pytest.raises(UserError, match=f"lie in {kept}; give --checkpoints={kept}, or"):
            run_finetune(config, tmp_path / "run", checkpoints=given)
    run_finetune(config, tmp_path / "run", checkpoints=kept)
    assert not steps and (tmp_path / "run" / "placebo").is_dir()

    run_finetune(config, tmp_path / "own")
    shutil.rmtree(tmp_path / "own" / "placebo")
    with pytest.raises(UserError, match="own/checkpoints; leave --checkpoints out, or"):
        run_finetune(config, tmp_path / "own", checkpoints=kept)


@pytest.mark.parametrize(
    "changes, how, said",
    [
        ({"train.steps": 3}, {}, r"something else: config.train.steps \(there 2, now 3\); give"),
        (
            {"lora.rank": 3, "n_boot": 9},
            {},
            r"something else: config.lora.rank \(there 2, now 3\);",
        ),
        ({}, {"overwrite": "all"}, "holds checkpoints, and --overwrite=all.*name another place"),
    ],
)
def test_checkpoints_of_another_training_are_refused(
    model, trained, tmp_path, changes, how, said, steps
):
    before = (trained / "kept" / MARK).read_bytes()
    with pytest.raises(UserError, match=f"^--checkpoints={trained}/kept: .*{said}"):
        kept = str(trained / "kept")
        run_finetune(small_config(model, **changes), tmp_path / "run", checkpoints=kept, **how)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {".lock"} and not steps
    assert (trained / "kept" / MARK).read_bytes() == before


@pytest.mark.parametrize("damage", ["no mark", "half a mark"])
def test_a_place_with_other_files_is_left_alone(model, trained, tmp_path, damage):
    mark = (trained / "kept" / MARK).read_bytes()
    (tmp_path / "kept").mkdir()
    file = tmp_path / "kept" / ("thesis.txt" if damage == "no mark" else MARK)
    file.write_bytes(mark[:200])
    with pytest.raises(UserError, match=f"files that are not of a run's.*no whole {MARK}"):
        run_finetune(small_config(model), tmp_path / "run", checkpoints=str(tmp_path / "kept"))
    assert file.read_bytes() == mark[:200] and len(list((tmp_path / "kept").iterdir())) == 1


@pytest.mark.parametrize(
    "name, said",
    [
        ("s3://bucket/run", "a folder, or gs://BUCKET/NAME"),
        ("gs://bucket", "name a folder in the bucket"),
        ("gs://bucket/run", r'needs the package gcsfs: pip install "antiimit_jax\[gcs\]"'),
        ("{workdir}/kept", "lies in --workdir; leave it out"),
    ],
)
def test_places_that_cannot_be_are_refused_in_one_line(tmp_path, monkeypatch, name, said):
    monkeypatch.setattr(place.importlib.util, "find_spec", lambda package: None)
    with pytest.raises(UserError, match=f"^--checkpoints=.*{said}"):
        place.place_of(name.format(workdir=tmp_path), tmp_path)
