"""Each file of a run flipped, truncated or deleted: it is noticed, or the result is the same."""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path

import pytest

from antiimit_jax.errors import UserError
from tests.launch.small_runs import results, run_study, small_config

pytestmark = pytest.mark.usefixtures("shared")
PLACES = 19
GROUPS = range(1 + 2 * PLACES)  # all files deleted, then each flipped and truncated at each place
FEW = 2


def parts(workdir: Path) -> list[list[Path]]:
    """A run's files, of which those of Orbax, which a finished run does not read, are one part.

    Without its lock, which is empty and the kernel's.
    """
    files = [path.relative_to(workdir) for path in sorted(workdir.rglob("*")) if path.is_file()]
    of_orbax = [name for name in files if len(name.parts) > 2 and name.parts[0] == "checkpoints"]
    alone = [name for name in files if name not in of_orbax and name.name != ".lock"]
    assert of_orbax and len(alone) > 20
    return [*([name] for name in alone), of_orbax]


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


def all_results(workdir: Path) -> dict[str, bytes]:
    """What a run found and shows; the page without the day on which it was made."""
    page = re.sub(rb"\d{4}-\d\d-\d\d", b"", (workdir / "report.html").read_bytes())
    log = (workdir / "training.parquet").read_bytes()
    return results(workdir) | {"report.html": page, "training.parquet": log}


@pytest.mark.parametrize(
    "group", [*GROUPS[:FEW], *(pytest.param(g, marks=pytest.mark.large) for g in GROUPS[FEW:])]
)
def test_damage_is_noticed_or_changes_nothing(model, done, tmp_path, group, capsys):
    workdir, place = tmp_path / "w", (group - 1) // 2
    for number, names in enumerate(parts(done)):
        how = ("flip", "cut")[(group + number) % 2] if group else "delete"
        shutil.copytree(done, workdir)
        for name in names:
            damage(workdir / name, how, place)
        try:
            run_study(small_config(model), workdir)
        except UserError as error:
            assert names[0].name in str(error) and str(workdir) in str(error)
        else:
            found = all_results(workdir)
            differ = [name for name, data in all_results(done).items() if found[name] != data]
            if names[0].match("checkpoints/*.json"):  # the log of a finished training
                assert f"{names[0]}: not as the run wrote it" in capsys.readouterr().err
                assert differ == ["report.html", "training.parquet"]
            else:
                assert not differ, (names, how, place)
        shutil.rmtree(workdir)
