"""The model a plan is for: its config and a tokenizer, from what is on this machine alone."""

import dataclasses
from pathlib import Path

from antiimit_jax.errors import UserError, near_misses
from antiimit_jax.json_files import read_json
from antiimit_jax.models.catalog import CATALOG, Entry, embedded_file, entry_of
from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.families import parse_config
from antiimit_jax.models.gguf import GgufCheckpoint
from antiimit_jax.models.weights import LISTED
from antiimit_jax.text.tokenizer import Tokenizer, load_tokenizer

STAND_IN = "smollm2-135m-instruct"


@dataclasses.dataclass(frozen=True)
class PlannedModel:
    """A model whose weights nobody has looked at."""

    name: str  # as asked for
    entry: Entry | None  # of the catalog
    cfg: ModelConfig
    config_from: str  # where the shape was read
    tokenizer_path: Path | None  # None: the embedded model's stands in

    def tokenizer(self) -> Tokenizer:
        """The model's own, or the one that stands in.

        Raises:
          UserError: it cannot be read, or the embedded model is not installed.
        """
        return load_tokenizer(self.tokenizer_path or embedded_file(CATALOG[STAND_IN]))

    @property
    def prompt_format(self) -> str:
        """ "chat" or "base"; chat where the catalog does not know."""
        return self.entry.prompt_format if self.entry else "chat"


def find_planned(model: str, flag: str = "model") -> PlannedModel:
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
        return PlannedModel(model, None, parse_config(read_json(file), str(file)), str(file), own)
    if model not in CATALOG and path.is_file() and path.suffix == ".gguf":
        cfg = parse_config(GgufCheckpoint(path).config(), model)
        return PlannedModel(model, None, cfg, model, path)
    if entry is not None:
        source = "the catalog's published shapes (a loaded model's own config.json decides)"
        own = embedded_file(entry) if entry.package else None
        return PlannedModel(model, entry, parse_config(entry.config, entry.hub_id), source, own)
    known = [*CATALOG, *(one.hub_id for one in CATALOG.values())]
    raise UserError(
        f"--{flag}={model}: not in the catalog{near_misses(model, known)}; {LISTED}; of any other "
        "model, put its config.json into a folder and name that"
    )
