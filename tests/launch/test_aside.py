"""In a run's folder nothing is deleted but what a killed program of ours left: its name tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.files import MARK, replace_file, whole_folder, write_sealed
from launch import aside
from launch.workdir import locked, open_run
from tests.launch.small_runs import small_config

RUN = {"kind": "run", "id": "1", "config": {}, "replaces": "", "checkpoints": None} | {
    "identity": {name: {} for name in ("model", "code", "files", "against")}
}


class Killed(BaseException):
    """Stands for the end of the program: what was begun stays as it is."""


def leave_behind(folder: Path, monkeypatch) -> None:
    """A file and a folder as a kill leaves them while they are written into a folder."""

    def killed(made: Path) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *_, **__: None)
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(Killed):
            replace_file(folder / "a.json", killed)
        with pytest.raises(Killed), whole_folder(folder / "stages") as made:
            (made / "x").write_text("half")
            raise Killed


@pytest.mark.parametrize(
    "name",
    [".thesis.20241105.old/t.txt", ".notes.chapter1.tmp", "stages/.thesis.20241105.new/t.txt"],
)
def test_files_of_others_with_names_like_temporary_ones_are_left_alone(tmp_path, name):
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("years of work")
    with pytest.raises(UserError, match="files that are not of a run"), locked(str(tmp_path)):
        pass
    aside.settle(tmp_path)
    write_sealed(tmp_path / MARK, RUN)
    aside.settle(tmp_path)
    assert file.read_text() == "years of work"


def test_a_run_killed_before_its_mark_leaves_a_folder_that_can_be_used(tmp_path, monkeypatch):
    workdir = tmp_path / "w"
    with locked(str(workdir)):
        leave_behind(workdir, monkeypatch)
    left = {path.name for path in workdir.iterdir()}
    assert len(left) == 3
    with locked(str(workdir)), pytest.raises(UserError, match="nowhere: no such file"):
        with open_run(small_config(Path("/nowhere")), workdir):
            pass
    assert {path.name for path in workdir.iterdir()} == left  # without a mark nothing is deleted
    write_sealed(workdir / MARK, RUN)
    aside.settle(workdir)
    assert {path.name for path in workdir.iterdir()} == {MARK, ".lock"}
