"""The configuration that a run wrote, for --config: `--config=W/config.json`."""

from collections.abc import Sequence
from pathlib import Path

import ml_collections

from antiimit_jax.errors import UserError
from antiimit_jax.reporting import run_files
from antiimit_jax.run_config import RunConfig, from_dict, to_dict


def read_saved(workdir: Path) -> RunConfig:
    """The configuration of the run in a folder.

    Raises:
      UserError: no config.json there, one that was changed, or of another version.
    """
    values = run_files.read_config(workdir)["config"]
    try:
        return from_dict(values)
    except UserError as error:
        file = workdir / run_files.CONFIG
        raise UserError(f"{file}: of another version; evaluate this run again ({error})") from error


def as_config_file(argv: Sequence[str]) -> list[str]:
    """A program's arguments; a config.json of --config is read by this module's `get_config`.

    Raises:
      UserError: see `read_saved`; or another JSON file.
    """
    argv, names = list(argv), ("--config", "-config")
    for i, arg in enumerate(argv):
        before = f"{arg.partition('=')[0]}=" if arg.partition("=")[0] in names else ""
        file = arg.removeprefix(before)
        if not file.endswith(".json") or not before and argv[i - 1] not in names:
            continue
        if Path(file).name != run_files.CONFIG:
            raise UserError(f"--config={file}: name a Python file or a run's {run_files.CONFIG}")
        read_saved(Path(file).parent)
        argv[i] = f"{before}{Path(__file__).resolve()}:{Path(file).parent}"
    return argv


def get_config(workdir: str) -> ml_collections.ConfigDict:
    """As config files have it; see `as_config_file`."""
    return ml_collections.ConfigDict(to_dict(read_saved(Path(workdir))))
