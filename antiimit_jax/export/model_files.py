"""What stands beside the weights of a model: configs, tokenizer, chat template, licence."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from antiimit_jax.errors import UserError
from antiimit_jax.files import write_json
from antiimit_jax.json_files import read_json
from antiimit_jax.language_model import DTYPES
from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.families import parse_config, text_config
from antiimit_jax.models.safetensors_files import check_inside
from antiimit_jax.models.weights import Source
from antiimit_jax.text.tokenizer import load_tokenizer

_TOKENIZER = """tokenizer.json tokenizer_config.json special_tokens_map.json added_tokens.json
    tokenizer.model vocab.json merges.txt chat_template.jinja chat_template.json
    additional_chat_templates/*.jinja""".split()
_LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def stored_dtype(source: Source, config: dict[str, Any]) -> str:
    """The type of the checkpoint's weights; float32 for a GGUF file, whose blocks are opened."""
    said = config.get("dtype") or config.get("torch_dtype")
    return said if source.path.is_dir() and said in DTYPES[1:] else "float32"


def write_model_files(folder: Path, source: Source, cfg: ModelConfig, dtype: str) -> list[str]:
    """Writes config.json, generation_config.json and the tokenizer.

    Returns:
      What the user should know: files that the model did not have.

    Raises:
      UserError: a file of the model cannot be read, or is a link that leads out of its folder.
    """
    config = dict(text_config(source.open().config()))
    tokens = {key: config[key] for key in _TOKENS if config.get(key) is not None}
    notes = []
    kept = source.path / "generation_config.json"
    if source.path.is_dir():
        check_inside(source.path / "config.json")
        check_inside(kept)
        _copy(source.path, folder, _LICENCES)
        if not _copy(source.path, folder, _TOKENIZER):
            notes.append(f"{source.path} has no tokenizer, so neither has the export")
    else:
        hf = load_tokenizer(source.path).hf
        hf.save_pretrained(folder)
        tokens = {key: getattr(hf, key) for key in _TOKENS if getattr(hf, key) is not None}
    config |= tokens | {"architectures": [_architecture(config)]}
    config["dtype" if "rope_parameters" in config else "torch_dtype"] = dtype
    if "dtype" in config:
        config["dtype"] = dtype
    if parse_config(config, "config.json") != cfg:
        raise UserError(f"{source.path}: its config does not survive the export; please report it")
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", read_json(kept) if kept.is_file() else tokens)
    return notes


def _architecture(config: dict[str, Any]) -> str:
    """The class of transformers that opens it."""
    given = config.get("architectures")
    if isinstance(given, list) and given and str(given[0]).endswith("ForCausalLM"):
        return str(given[0])
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config["model_type"]]


def _copy(source: Path, folder: Path, patterns: Iterable[str]) -> int:
    found = {file for pattern in patterns for file in source.glob(pattern)}
    files = [file for file in sorted(found) if file.is_file()]
    for file in files:
        check_inside(file, source)
        place = folder / file.relative_to(source)
        place.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, place)
    return len(files)
