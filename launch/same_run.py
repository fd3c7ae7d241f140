"""Whether what is asked for is the run that lies in a folder: its fields, model, files and code."""

import contextlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from antiimit_jax.errors import UserError
from antiimit_jax.evaluation.second import second_files
from antiimit_jax.fields import own_files
from antiimit_jax.files import sha256
from antiimit_jax.json_files import UserFile
from antiimit_jax.models.weights import find_model
from antiimit_jax.reporting import run_files
from antiimit_jax.reporting.identity import code, differing, file_hashes, identity
from antiimit_jax.reporting.report import PAGE
from antiimit_jax.run_config import PART, RunConfig, from_dict, is_read, to_dict
from antiimit_jax.study import Study
from antiimit_jax.trees import flat
from launch import aside, cli

Identity = Mapping[str, Mapping[str, str]]


def plain(config: RunConfig) -> dict[str, Any]:
    """A configuration as a mark holds it."""
    return json.loads(json.dumps(to_dict(config)))


def bound_by(workdir: Path, overwrite: str | None) -> frozenset[str]:
    """Which fields the results that stay in a folder were made with: "training", "evaluation"."""
    stays = set(aside.run_names(workdir, "all"))
    stays -= set(aside.run_names(workdir, overwrite)) if overwrite else set()
    trained = stays & {"checkpoints", *(path.name for path in aside.adapters_there(workdir))}
    found = {"training": trained, "evaluation": "stages" in stays}
    return frozenset(name for name, there in found.items() if there)


def settled(
    workdir: Path,
    config: RunConfig,
    theirs: dict[str, Any],
    reads: Collection[str],
    bound: Collection[str],
) -> RunConfig:
    """The configuration for what lies there: fields that this program does not read stay.

    Raises:
      UserError: another one was given for results that stay.
    """
    ours, conflicts, own = plain(config), [], own_files(config)
    for name in differing(theirs, ours):
        group = name.partition(".")[0]
        part = PART.get(group)  # None for what both parts read
        if bound if part is None else part in bound and (part in reads or group not in theirs):
            conflicts += [name] if name not in own else []  # what a file holds counts, not its name
        elif part in bound:
            ours[group] = theirs[group]
    if conflicts:
        groups = {PART.get(name.partition(".")[0]) for name in conflicts} - {"evaluation"}
        there, now = flat(theirs), flat(plain(config))
        shown = [f"{key} (there {there.get(key)}, now {now.get(key)})" for key in conflicts[:4]]
        raise UserError(
            f"--workdir={workdir}: holds a run with another config: {', '.join(shown)}"
            f"{', ...' if len(conflicts) > 4 else ''}; name another folder, or "
            f"{_anew(bound if groups else ())}"
        )
    return from_dict(ours)


def _anew(bound: Collection[str]) -> str:
    if "training" in bound:
        return "start anew with --overwrite=all, which deletes its adapters too"
    return "--overwrite to measure anew"


def identity_of(
    study: Study, own: Mapping[str, UserFile], reads: Collection[str], there: Identity
) -> dict[str, dict[str, str]]:
    """The identity of a run as its mark holds it.

    Args:
      own: the user's files that the program reads.
      there: identity of what stays in the folder, for what the program does not read.
    """
    now = identity(study.lm.source, study.config.quantize, cli.say)
    files = {n: sha256 for n, sha256 in there.get("files", {}).items() if not is_read(n, reads)}
    now["files"] = files | {name: held.sha256 for name, held in own.items()}
    now["against"] = dict(there.get("against", {}))
    if is_read("against", reads):
        now["against"] = file_hashes(study.against, cli.say) if study.against else {}
    return now


def check_identity(workdir: Path, there: Identity, now: Identity, bound: Collection[str]) -> None:
    """Raises UserError where what stays was made with another model, other files or other code."""
    if found := _difference(workdir, there, now, bound):
        what, remedy = found
        raise UserError(f"--workdir={workdir}: {what}; {remedy}")


def is_to_stay(workdir: Path, config: RunConfig, there: Identity) -> bool:
    """Whether a finished run is shown as it lies there, since what it was made with is no more.

    One line then says what differs. What cannot be found here is not compared.

    Raises:
      UserError: something differs, and results are lost or damaged, so they would be made with it.
    """
    now, bound = _found(config, there), bound_by(workdir, None)
    found = _difference(workdir, there, now, bound)
    if found and not (run_files.is_whole(workdir) and (workdir / PAGE).is_file()):
        check_identity(workdir, there, now, bound)
    if found:
        cli.say(f"note: {workdir}: {found[0]}; its results are shown as they lie there")
    return found is not None


def _found(config: RunConfig, there: Identity) -> Identity:
    """The identity of what a configuration names here; what is not here is as it was there."""
    now = {name: dict(there.get(name, {})) for name in ("model", "against", "files")}
    models = {"model": lambda: find_model(config.model, config.revision or None, fetch=False).files}
    if config.against:
        models["against"] = lambda: second_files(config.against, fetch=False)
    for name, files in models.items():
        with contextlib.suppress(UserError):
            now[name] = file_hashes(files(), cli.say)
    for name, (file, _) in own_files(config).items():
        if file and Path(file).is_file():
            now["files"][name] = sha256(Path(file))
    return now | {"code": code(config.quantize)}


def _difference(
    workdir: Path, there: Identity, now: Identity, bound: Collection[str]
) -> tuple[str, str] | None:
    """What of that differs with which the results that stay were made, and what to do."""
    names = differing(there["model"], now["model"]) if bound else []
    if names:
        what = f"the model is not the one of this run ({', '.join(names[:4])} differ)"
        return what, f"put it back, name another folder, or {_anew(bound)}"
    names = differing(there.get("against", {}), now["against"]) if "evaluation" in bound else []
    if names:
        what = f"--against is not the one of this run ({', '.join(names[:4])} differ)"
        return what, f"put it back, name another folder, or {_anew(())}"
    old, new = there.get("files", {}), now["files"]
    if names := [name for name in differing(old, new) if bound and is_read(name, bound)]:
        what = f"made with other files of yours: {_shown(names, old, new)} (SHA-256)"
        return what, f"give those it was made with, name another folder, or {_anew(bound)}"
    old, new = there["code"], now["code"]
    training = [p for p in (workdir / "checkpoints").glob("*") if p.is_dir()]
    unfinished = len(training) > len(aside.adapters_there(workdir))
    names = differing(old, new)
    if names and ("evaluation" in bound or "training" in bound and unfinished):
        what = f"begun with other code: {_shown(names, old, new)}"
        how = _anew(bound if unfinished else ())
        return what, f"go on with that, name another folder, or {how}"
    return None


def _shown(names: Sequence[str], there: Mapping[str, str], now: Mapping[str, str]) -> str:
    brief = lambda values, name: str(values.get(name))[:12]
    return ", ".join(f"{n} (there {brief(there, n)}, now {brief(now, n)})" for n in names)
