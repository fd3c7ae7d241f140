"""Each file of a run flipped, truncated or deleted: it is noticed, or the result is the same."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.files import MARK
from tests.battery import tenth
from tests.launch.small_runs import results, run_study, small_config

pytestmark = pytest.mark.usefixtures("shared")
FILES = (
    MARK,
    "config.json",
    "metrics.json",
    "report.html",
    "items.parquet",
    "training.parquet",
    "checkpoints/tuned.json",
    f"adapter/{MARK}",
    "adapter/adapter_model.safetensors",
    "adapter/adapter_config.json",
    f"stages/base/{MARK}",
    "stages/base/items.parquet",
    "stages/placebo/items.parquet",
)
PLACES = 19
GROUPS = {"delete": [(name, "delete", 0) for name in FILES]}
for place in range(PLACES):  # of each file
    GROUPS[f"place {place}"] = [(name, how, place) for name in FILES for how in ("flip", "cut")]


def damage(file: Path, how: str, place: int) -> None:
    data = bytearray(file.read_bytes())
    at = random.Random(place).randrange(len(data))
    if how == "delete":
        file.unlink()
    elif how == "cut":
        file.write_bytes(data[:at])
    else:
        data[at] ^= 1 << place % 8
        file.write_bytes(data)


@pytest.mark.parametrize("group", tenth(list(GROUPS)))  # two of them delete, flip and cut each file
def test_damage_is_noticed_or_changes_nothing(model, done, tmp_path, group, capsys):
    for name, how, place in GROUPS[group]:
        workdir = tmp_path / "w"
        shutil.copytree(done, workdir)
        damage(workdir / name, how, place)
        try:
            run_study(small_config(model), workdir)
        except UserError as error:
            assert Path(name).name in str(error) and str(workdir) in str(error)
        else:
            assert results(workdir) == results(done), (name, how, place)
            if name == "checkpoints/tuned.json":
                assert f"{name}: not as the run wrote it" in capsys.readouterr().err
        shutil.rmtree(workdir)
