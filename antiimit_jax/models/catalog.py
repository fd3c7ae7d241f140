"""The named models: alias -> where the weights are, how the model is spoken to, and its pair.

Revision policy: the newest commit of the hub's default branch, unless --revision names another. The
commit that was found is recorded in the run (`run.commit` of metrics.json).

A pair is a base and its post-trained release of one size: what the study compares.

The table is `data/catalog.jsonl`. The shapes are `data/configs.jsonl`: what the hub's `config.json`
says about the computation, in the dialect it is published in, so that shapes are known before any
download. They serve `launch.plan` alone. Parameter totals are checked against transformers'
(`tests/models/test_catalog.py`); what nobody compared with a published file stands in `unverified`.
"""

import dataclasses
import importlib.util
import re
from pathlib import Path
from typing import Any

from antiimit_jax.errors import UserError
from antiimit_jax.models.tables import read_table

_SIZE = re.compile(r"-\d+(\.\d+)?[bm](?=-|$)")  # as an alias tells it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One named model: a hub id, or a file that an installed package carries."""

    hub_id: str
    prompt_format: str  # "chat" or "base": having a template does not make a model a chat model
    licence: str = ""
    gate: str = ""  # what the hub asks for before it gives the files; "" where it asks nothing
    counterpart: str = ""  # alias of the base's post-trained release, or the other way round
    note: str = ""  # which version an ambiguous alias means; said when it is used
    # Published; a model that is loaded is described by its own.
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    unverified: str = ""  # facts of `config` that nobody compared with the published file
    package: str = ""  # import name of the package that carries `filename`
    filename: str = ""
    install: str = ""  # how to get that package

    @property
    def family(self) -> str:
        """Hugging Face `model_type`."""
        return self.config.get("model_type", "")


def _read_catalog() -> dict[str, Entry]:
    """Entries as the files list them; a line with `means` is another name of one of them."""
    configs = {row["name"]: row["config"] for row in read_table("configs")}
    catalog: dict[str, Entry] = {}
    for row in read_table("catalog"):
        alias = row.pop("alias")
        if means := row.pop("means", ""):
            entry, others = catalog[means], row.pop("others")
            note = f"{alias} means {means} ({entry.hub_id}); other versions: {others}"
            catalog[alias] = dataclasses.replace(entry, note=note, **row)
        else:
            config = configs[row.pop("config")] | row.pop("differs", {})
            catalog[alias] = Entry(config=config, **row)
    return catalog


CATALOG = _read_catalog()


def entry_of(model: str) -> Entry | None:
    """The entry of an alias or of a hub id that the catalog knows; None for anything else."""
    if model in CATALOG:
        return CATALOG[model]
    return next((entry for entry in CATALOG.values() if entry.hub_id == model), None)


def alias_of(entry: Entry) -> str:
    """The first alias of an entry: others that mean the same model have the same."""
    return next(alias for alias, other in CATALOG.items() if other.hub_id == entry.hub_id)


def pair_of(entry: Entry) -> str:
    """The alias of the base of an entry's pair; "" where one of the two was never released."""
    if not entry.counterpart:
        return ""
    return alias_of(entry if entry.prompt_format == "base" else CATALOG[entry.counterpart])


def series_of(entry: Entry) -> str:
    """What releases of one kind and several sizes share: the base's alias without its size."""
    return _SIZE.sub("", pair_of(entry) or alias_of(entry)).removesuffix("-base")


def embedded_file(entry: Entry) -> Path:
    """The file inside its package, found without importing the package.

    Raises:
      UserError: the package is not installed or does not hold the file.
    """
    spec = importlib.util.find_spec(entry.package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        if (path := Path(folder) / entry.filename).is_file():
            return path
    raise UserError(f"{entry.filename} is not installed; run `make install` or `{entry.install}`")
