"""The whole export: checked before anything is written, then there whole or not at all."""

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np

from antiimit_jax.errors import UserError
from antiimit_jax.export.card import run_of, write_card
from antiimit_jax.export.merged import total_bytes, write_merged
from antiimit_jax.export.model_files import stored_dtype, write_model_files
from antiimit_jax.files import MARK, sha256, whole_folder, write_sealed
from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.leaves import stored_tensors
from antiimit_jax.models.peft import Adapter, base_name, load_adapter
from antiimit_jax.models.peft_write import write_adapter
from antiimit_jax.models.weights import Source, load_config
from antiimit_jax.reporting.marks import read_mark

FORMATS = ("hf", "peft")
Progress = Callable[[str, int], Callable[[int], None]]
_SPARE = 64 * 2**20  # bytes for what stands beside the weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class Form:
    """How an export is written."""

    name: str = "hf"  # the model with an adapter merged in; "peft": the adapter alone
    dtype: str = "auto"  # of the weights in "hf": the checkpoint's own, float32 for GGUF
    max_shard_size: int | str = "2GB"


def export(
    source: Source,
    adapter_folder: Path | None,
    out: Path,
    form: Form = Form(),
    *,
    suites: Mapping[str, ModuleType],
    overwrite: bool = False,
    progress: Progress = lambda what, total: lambda count: None,
) -> list[str]:
    """Writes a model with an adapter merged in, or the adapter alone, with a model card.

    Args:
      suites: whose headline figures the card shows, where the adapter lies in a run's folder.
      overwrite: an export that lies at `out` is replaced, once the new one is whole.

    Returns:
      What the user should know about it.

    Raises:
      UserError: a checkpoint or adapter that does not fit, a folder that is not free, or too
        little space.
      OSError: the disk is full after all.
    """
    cfg = load_config(source)
    adapter = load_adapter(adapter_folder, cfg) if adapter_folder else None
    notes = []
    if adapter is not None and not adapter.made_for(source.name):
        notes.append(f"the adapter was made for {adapter.base_model}, not {source.name}")
    peft = form.name == "peft"
    if peft and adapter is None:
        raise UserError("--format=peft writes an adapter; name one with --adapter")
    _check_free(out, overwrite, [source.path, adapter_folder])
    checkpoint = source.open()
    dtype = form.dtype if form.dtype != "auto" else stored_dtype(source, checkpoint.config())
    run = run_of(adapter_folder) if adapter_folder else None
    if not peft:
        _check_space(out, total_bytes(cfg, dtype) + _SPARE)
    with whole_folder(out) as made:
        if peft:
            _write_adapter(made, adapter, cfg, source)
        else:
            notes += write_model_files(made, source, cfg, dtype)
            done = progress("exporting", len(stored_tensors(cfg)))
            write_merged(made, checkpoint, cfg, adapter, dtype, form.max_shard_size, done)
        write_card(made, source, adapter, run, None if peft else dtype, suites)
        files = sorted(path for path in made.rglob("*") if path.is_file())
        written = {path.relative_to(made).as_posix(): sha256(path) for path in files}
        write_sealed(made / MARK, {"kind": "export", "files": written})
    return notes


def _check_free(out: Path, overwrite: bool, sources: list[Path | None]) -> None:
    """The folder is new or empty, or an earlier export that may go."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out={out}: is a file; name a folder")
    for source in sources:
        if source is not None and source.resolve().is_relative_to(out.resolve()):
            raise UserError(f"--out={out}: holds {source}, which is read; name another folder")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not overwrite:
        raise UserError(f"--out={out}: is not empty; name another folder, or --overwrite it")
    if strangers := _strangers(out):
        shown, what = ", ".join(strangers[:4]), "is not of an export, or was changed since"
        raise UserError(
            f"--out={out}: holds what {what} ({shown}); move it away, or name another folder"
        )


def _strangers(out: Path) -> list[str]:
    """What lies in a folder and is not as an export of ours, by its mark, left it there."""
    mark = read_mark(out, "export")
    ours = {**mark["files"], MARK: sha256(out / MARK)} if mark else {}
    folders = {above.as_posix() for name in ours for above in Path(name).parents}

    def is_ours(path: Path, name: str) -> bool:
        if path.is_symlink() or path.is_dir():
            return not path.is_symlink() and name in folders
        return name in ours and path.is_file() and sha256(path) == ours[name]

    inside = {path.relative_to(out).as_posix(): path for path in out.rglob("*")}
    return sorted(name for name, path in inside.items() if not is_ours(path, name))


def _check_space(out: Path, needed: int) -> None:
    above = next(path for path in out.resolve().parents if path.exists())
    free = shutil.disk_usage(above).free
    if free < needed:
        short = f"needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free there"
        raise UserError(f"--out={out}: {short}")


def _write_adapter(folder: Path, adapter: Adapter, cfg: ModelConfig, source: Source) -> None:
    groups = adapter.tree["layers"].values()
    pairs = {name: pair for group in groups for name, pair in group.items()}
    layers = range(cfg.n_layers)
    adapted = [i for i in layers if any(np.any(pair["a"][i]) for pair in pairs.values())]
    kind = {"rank": adapter.rank, "alpha": adapter.scale * adapter.rank}
    base = {"base_model": base_name(source.name), "revision": source.revision}
    write_adapter(folder, pairs, cfg, layers=adapted or layers, **kind, **base)
