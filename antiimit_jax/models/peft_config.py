"""`adapter_config.json`: what PEFT says about a LoRA adapter, every key read or refused.

Which modules an adapter has, and the rank and scale of each, follow from names and patterns as in
PEFT 0.21.2 (`check_target_module_exists` and `get_pattern_key`).
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from antiimit_jax.errors import UserError
from antiimit_jax.models.config_keys import SCALE, is_count
from antiimit_jax.models.name_patterns import match_names
from antiimit_jax.models.safetensors_files import read_json
from antiimit_jax.models.tables import read_table

CONFIG_FILE = "adapter_config.json"
# Key -> why it is refused where it is set; "" where it is read below, or changes no logits.
_KEYS = {row["key"]: row.get("refused", "") for row in read_table("adapter_keys")}
# Other beginnings (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) change the base's weights too.
_BASE_STAYS = (None, True, False, "gaussian", "eva", "orthogonal", "mica")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PeftConfig:
    """An `adapter_config.json` of a kind that is ported."""

    file: Path
    values: Mapping[str, Any]

    @property
    def base_model(self) -> str:
        return str(self.values.get("base_model_name_or_path") or "")

    def rank_and_scale(self, modules: Sequence[str]) -> dict[str, tuple[int, float]]:
        """Rank and scale of each module, by its name in the torch model.

        Raises:
          UserError: a pattern that is no regular expression, or that takes too long.
        """
        ranks = self._first_match("rank_pattern", modules)
        alphas = self._first_match("alpha_pattern", modules)
        divisor = math.sqrt if self.values.get("use_rslora") else float
        found = {}
        for module in modules:
            rank = ranks.get(module, self.values["r"])
            alpha = alphas.get(module, self.values["lora_alpha"])
            found[module] = rank, alpha / divisor(rank)
        return found

    def not_targeted(self, modules: Sequence[str]) -> list[str]:
        """Those of the modules to which PEFT would give no adapter; it would drop their tensors."""
        targets, layers = self.values.get("target_modules"), self.values.get("layers_to_transform")
        inside = self._named("target_modules", modules)
        if layers not in (None, []) and not isinstance(targets, str):
            inside &= self._in_layers([layers] if isinstance(layers, int) else layers, modules)
        inside -= self._named("exclude_modules", modules)
        return [module for module in modules if module not in inside]

    def _named(self, key: str, modules: Sequence[str]) -> set[str]:
        """Modules that a list names by their last parts, or one pattern as a whole."""
        value = self.values.get(key) or []
        if isinstance(value, list):
            return {m for m in modules if any(m == e or m.endswith(f".{e}") for e in value)}
        if value.lower() == "all-linear":
            return set(modules)
        (hits,) = self._matches(key, [value], modules, before="(?:", after=r")\Z")
        return {module for module, hit in zip(modules, hits) if hit is not None}

    def _in_layers(self, layers: Sequence[int], modules: Sequence[str]) -> set[str]:
        given = self.values.get("layers_pattern") or []
        ends = dict(before=r"(?:^|.*?\.)", after=r"\.(?P<idx>\d+)\.")
        if isinstance(given, str):
            given = [given]
        if not given:
            given, ends = [""], dict(before=r".*?\.[^.]*\.(?P<idx>\d+)\.", after="")
        columns = zip(*self._matches("layers_pattern", given, modules, **ends))
        first = (next((hit for hit in hits if hit is not None), None) for hits in columns)
        return {m for m, index in zip(modules, first) if index and int(index) in layers}

    def _first_match(self, key: str, modules: Sequence[str]) -> dict[str, Any]:
        """Module -> value of the first pattern that matches the end of its name."""
        given = self.values.get(key) or {}
        rows = self._matches(key, given, modules, before=r"(.*\.)?(", after=")$")
        found: dict[str, Any] = {}
        for value, hits in zip(given.values(), rows):
            found = {m: value for m, hit in zip(modules, hits) if hit is not None} | found
        return found

    def _matches(self, key: str, patterns, names: Sequence[str], **ends: str) -> list[list]:
        try:
            return match_names(patterns, names, **ends)
        except ValueError as error:
            raise UserError(f"{self.file}: `{key}`: {error}") from error


def read_adapter_config(folder: Path) -> PeftConfig:
    """Reads and checks `adapter_config.json`.

    Raises:
      UserError: not there, or a kind of adapter that is not ported; one message for all that is
        wrong.
    """
    file = folder / CONFIG_FILE
    if not file.is_file():
        inside = sorted(found.parent.name for found in folder.glob(f"*/{CONFIG_FILE}"))
        hint = f" (there is one in {', '.join(inside)})" if inside else ""
        raise UserError(f"{folder}: no {CONFIG_FILE}{hint}; name a folder with a PEFT adapter")
    values = read_json(file)
    if values.get("peft_type") != "LORA":
        raise UserError(f"{file}: peft_type {values.get('peft_type')!r} is not ported (LORA is)")
    refused = {key: why for key, why in _KEYS.items() if why and values.get(key)}
    problems = [f"`{key}` is set, and {why}" for key, why in refused.items()]
    if values.get("bias", "none") != "none":
        problems.append(f"`bias` = {values['bias']!r}, and trained biases are not ported")
    start = values.get("init_lora_weights")
    if start not in _BASE_STAYS:
        how = "save the adapter with path_initial_model_for_weight_conversion"
        problems.append(f"`init_lora_weights` = {start!r} changes the base's weights; {how}")
    rank, alpha = values.get("r"), values.get("lora_alpha")
    if not is_count(rank):
        problems.append(f"`r` must be a positive integer, not {rank!r}")
    if alpha not in SCALE:
        problems.append(f"`lora_alpha` must be {SCALE}, not {alpha!r}")
    given = {key: value for key, value in values.items() if value is not None}
    wrong = [key for key, good in _KINDS.items() if key in given and not good(given[key])]
    wrong += [key for key, value in values.items() if key not in _KEYS and value]
    problems += [f"`{key}` = {values[key]!r} is not understood" for key in wrong]
    if problems:
        raise UserError(f"{file}: {'; '.join(problems)}")
    return PeftConfig(file=file, values=values)


def _one_or_several(good: Callable[[Any], bool]) -> Callable[[Any], bool]:
    several = lambda value: isinstance(value, list) and all(map(good, value))
    return lambda value: good(value) or several(value)


def _pattern_of(good: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(good, value.values()))


_names = _one_or_several(lambda value: isinstance(value, str))
_KINDS = {  # what a value must be that is not null
    "target_modules": _names,
    "exclude_modules": _names,
    "layers_pattern": _names,
    "layers_to_transform": _one_or_several(lambda value: type(value) is int),
    "rank_pattern": _pattern_of(is_count),
    "alpha_pattern": _pattern_of(SCALE.__contains__),
    "use_rslora": lambda value: isinstance(value, bool),
}
