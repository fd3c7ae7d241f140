"""What is known of a model before its weights are there: catalog facts, shape, size."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from antiimit_jax.errors import UserError, near_misses
from antiimit_jax.json_files import read_json
from antiimit_jax.models.catalog import CATALOG, Entry, embedded_file, entry_of
from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.families import parse_config
from antiimit_jax.models.gguf import GgufCheckpoint
from antiimit_jax.models.weights import LISTED, abstract_params

FACTS = ("licence", "gate", "counterpart", "note", "unverified")  # of a catalog's entry
_COLUMNS = ("alias", "hub_id", "family", "parameters", "format", "licence", "gate")


@dataclasses.dataclass(frozen=True)
class KnownModel:
    """A model whose weights nobody has looked at."""

    name: str  # as asked for
    entry: Entry | None  # of the catalog, whose published shape `cfg` then is
    cfg: ModelConfig
    tokenizer: Path | None  # None: not on this machine


def find_known(model: str, flag: str = "model") -> KnownModel:
    """Resolves ALIAS, HUB_ID of the catalog, FOLDER with a config.json, or FILE.gguf.

    Args:
      flag: where the name was given, for messages.

    Raises:
      UserError: nothing of that name here (with near misses), or a config that is not understood.
    """
    path, entry = Path(model).expanduser(), entry_of(model)
    if model not in CATALOG and path.is_dir():
        file = path / "config.json"
        if not file.is_file():
            raise UserError(f"{path}: no config.json; name a Hugging Face model folder")
        own = path if (path / "tokenizer.json").is_file() else None
        return KnownModel(model, None, parse_config(read_json(file), str(file)), own)
    if model not in CATALOG and path.is_file() and path.suffix == ".gguf":
        return KnownModel(model, None, parse_config(GgufCheckpoint(path).config(), model), path)
    if entry is not None:
        own = embedded_file(entry) if entry.package else None
        return KnownModel(model, entry, parse_config(entry.config, entry.hub_id), own)
    known = [*CATALOG, *(one.hub_id for one in CATALOG.values())]
    raise UserError(
        f"--{flag}={model}: not in the catalog{near_misses(model, known)}; {LISTED}; of any other "
        "model, put its config.json into a folder and name that"
    )


@functools.cache
def n_params(cfg: ModelConfig) -> int:
    """Parameters; a tied head counts once."""
    return sum(x.size for x in jax.tree.leaves(abstract_params(cfg, "float32")))


def listing() -> list[dict[str, Any]]:
    """All named models, one dict each."""
    return [
        {
            "alias": alias,
            "hub_id": entry.hub_id,
            "family": entry.family,
            "parameters": n_params(parse_config(entry.config, alias)),
            "format": entry.prompt_format,
            **{fact: getattr(entry, fact) for fact in FACTS},
        }
        for alias, entry in CATALOG.items()
    ]


def listing_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of all named models."""
    lines = [("alias", "hub id", "family", "params", "format", "licence", "gate")]
    for row in rows:
        size = f"{row['parameters'] / 1e9:.3f} B"
        shown = {**row, "parameters": size, "gate": row["gate"] or "open"}
        lines.append(tuple(shown[column] for column in _COLUMNS))
    widths = [max(map(len, column)) for column in zip(*lines)]
    table = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    notes = [
        row["note"] if row["alias"] in row["note"] else f"{row['alias']}: {row['note']}"
        for row in rows
        if row["note"]
    ]
    policy = "revision: the newest commit of the hub's default branch unless --revision names one"
    return "\n".join([*table, "", *notes, policy]) + "\n"
