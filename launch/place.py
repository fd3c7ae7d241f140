"""Checkpoints in a place of their own (`--checkpoints`): another folder, or gs://BUCKET/NAME.

A machine may be gone with its disk, and the next one begins with an empty --workdir. So the place
bears a mark of what its checkpoints were trained with; who trains with anything else is refused.
Nothing locks it: one run at a time may use it.
"""

import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags
from etils import epath

from antiimit_jax.errors import UserError
from antiimit_jax.fields import own_files
from antiimit_jax.files import MARK, sealed, unsealed, write_json, write_sealed
from antiimit_jax.reporting.identity import differing
from antiimit_jax.run_config import RunConfig, is_read, to_dict
from antiimit_jax.training.checkpoint import in_bucket, reaching
from antiimit_jax.trees import flat
from launch import cli, hosts

_TRAINING = ("training",)
_BUCKET = re.compile(r"gs://[^/]+/[^/].*")


def define_checkpoints() -> None:
    """--checkpoints."""
    said = "Where checkpoints lie, if not in --workdir: another folder, or gs://BUCKET/NAME."
    flags.DEFINE_string("checkpoints", None, said)
    cli.show_flags("checkpoints")


def given() -> str | None:
    """The value of --checkpoints, which not all programs have."""
    return cli.FLAGS["checkpoints"].value if "checkpoints" in cli.FLAGS else None


def place_of(name: str, workdir: Path) -> epath.Path:
    """The place that a flag names; nothing is made or asked for there.

    Raises:
      UserError: it is of another kind, lies in the run's own folder, a package is missing, or there
        are several processes.
    """
    if hosts.several():
        raise UserError(f"--checkpoints={name}: is for one process; with several leave it out")
    if in_bucket(name):
        if not _BUCKET.fullmatch(name):
            raise UserError(f"--checkpoints={name}: name a folder in the bucket, gs://BUCKET/NAME")
        if importlib.util.find_spec("gcsfs") is None:
            how = 'pip install "antiimit_jax[gcs]"'
            raise UserError(f"--checkpoints={name}: needs the package gcsfs: {how}")
        return epath.Path(name)
    if "://" in name:
        raise UserError(f"--checkpoints={name}: a folder, or gs://BUCKET/NAME")
    place = Path(os.path.abspath(os.path.expanduser(name)))
    if place.is_relative_to(os.path.abspath(workdir)):
        raise UserError(f"--checkpoints={name}: lies in --workdir; leave it out, or name another")
    return epath.Path(place)


def stay_in_place(was: str | None, now: epath.Path | None, workdir: Path) -> None:
    """Raises UserError where a run that is not trained yet has its checkpoints elsewhere.

    Args:
      was: the place that its mark names; None: the run's own folder.
    """
    if (was is None and not (workdir / "checkpoints").is_dir()) or was == (now and str(now)):
        return
    how = f"give --checkpoints={was}" if was else "leave --checkpoints out"
    where = was or f"{workdir / 'checkpoints'}"
    hint = "--overwrite=all trains anew"
    raise UserError(f"{workdir}: its checkpoints lie in {where}; {how}, or {hint}")


def bind(
    place: epath.Path, config: RunConfig, identity: Mapping[str, Mapping[str, str]], *, anew: bool
) -> None:
    """Marks a place that is empty; checks the mark of one that is not.

    Args:
      identity: of the run, as its own mark holds it.
      anew: the run's adapters are to be trained again.

    Raises:
      UserError: what lies there was trained with something else, or is no checkpoint of a run's;
        with `anew`, anything lies there; or it cannot be reached.
    """
    file, flag = place / MARK, f"--checkpoints={place}"
    with reaching(place, "cannot be read", flag="--checkpoints="):
        marked = file.exists()
        there = unsealed(file.read_bytes()) if marked else None
        empty = not marked and not (place.exists() and any(place.iterdir()))
    now = _made_with(config, identity)
    if empty:
        with reaching(place, "cannot be written to", flag="--checkpoints="):
            write_json(file, sealed(now)) if in_bucket(place) else write_sealed(Path(file), now)
        return
    if there is None:
        raise UserError(
            f"{flag}: holds files that are not of a run's checkpoints (no whole {MARK}); "
            "name another place"
        )
    if anew:
        raise UserError(
            f"{flag}: holds checkpoints, and --overwrite=all replaces what lies in --workdir "
            "alone; name another place, or leave --overwrite out to go on from there"
        )
    if names := differing(there, now):
        theirs, ours = flat(there), flat(now)
        shown = [f"{n} (there {_brief(theirs, n)}, now {_brief(ours, n)})" for n in names[:4]]
        raise UserError(
            f"{flag}: holds checkpoints made with something else: {', '.join(shown)}"
            f"{', ...' if len(names) > 4 else ''}; give what they were made with, or name "
            "another place"
        )


def _made_with(config: RunConfig, identity: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """All that decides what training gives, as JSON holds it; of the user's files the hashes."""
    named, fields = own_files(config), flat(to_dict(config))
    read = {n: value for n, value in fields.items() if is_read(n, _TRAINING) and n not in named}
    files = {n: sha256 for n, sha256 in identity["files"].items() if is_read(n, _TRAINING)}
    plain = {n: list(value) if isinstance(value, tuple) else value for n, value in read.items()}
    return {"config": plain, "model": identity["model"], "code": identity["code"], "files": files}


def _brief(values: Mapping[str, Any], name: str) -> str:
    return str(values.get(name))[:12]
