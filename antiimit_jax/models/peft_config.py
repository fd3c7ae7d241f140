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
from antiimit_jax.models.config_keys import is_count, is_positive
from antiimit_jax.models.name_patterns import match_names
from antiimit_jax.models.safetensors_files import read_json

CONFIG_FILE = "adapter_config.json"
_REFUSED = {
    "use_dora": "DoRA is not ported",
    "use_qalora": "QALoRA is not ported",
    "use_bdlora": "block-diagonal LoRA is not ported",
    "alora_invocation_tokens": "activated LoRA is not ported",
    "arrow_config": "Arrow routing is not ported",
    "kasa_config": "KaSA is not ported",
    "velora_config": "VeLoRA is not ported",
    "monteclora_config": "MonteCLoRA is not ported",
    "megatron_config": "Megatron layers are not ported",
    "layer_replication": "repeated layers are not ported",
    "modules_to_save": "fully trained modules are not ported",
    "target_parameters": "adapters of bare parameters are not ported",
    "trainable_token_indices": "trained tokens are not ported",
    "lora_bias": "biases in LoRA are not ported",
}
_READ = frozenset(
    """peft_type r lora_alpha use_rslora rank_pattern alpha_pattern target_modules exclude_modules
    layers_to_transform layers_pattern base_model_name_or_path bias init_lora_weights""".split()
)
# Notes, training, and beginnings that the saved tensors replace.
_HARMLESS = frozenset(
    """auto_mapping corda_config ensure_weight_tying eva_config fan_in_fan_out inference_mode
    loftq_config lora_dropout lora_ga_config megatron_core peft_version qalora_group_size revision
    runtime_config task_type""".split()
)
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
        found = {}
        for module in modules:
            rank = ranks.get(module, self.values["r"])
            alpha = alphas.get(module, self.values["lora_alpha"])
            root = self.values.get("use_rslora")
            found[module] = rank, alpha / (math.sqrt(rank) if root else rank)
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
            for module, hit in zip(modules, hits):
                if hit is not None:
                    found.setdefault(module, value)
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
    problems = [f"`{key}` is set, and {why}" for key, why in _REFUSED.items() if values.get(key)]
    if values.get("bias", "none") != "none":
        problems.append(f"`bias` = {values['bias']!r}, and trained biases are not ported")
    start = values.get("init_lora_weights")
    if start not in _BASE_STAYS:
        problems.append(
            f"`init_lora_weights` = {start!r} changes the base's weights; save the adapter with "
            "path_initial_model_for_weight_conversion"
        )
    rank, alpha = values.get("r"), values.get("lora_alpha")
    if not is_count(rank) or not is_positive(alpha):
        problems.append(f"`r` = {rank!r} and `lora_alpha` = {alpha!r} must be positive")
    for key, good in _KINDS.items():
        if key in values and not good(values[key]):
            problems.append(f"`{key}` = {values[key]!r} is not understood")
    known = _READ | _HARMLESS | set(_REFUSED)
    problems += [
        f"`{key}` = {value!r} is not understood"
        for key, value in values.items()
        if key not in known and value
    ]
    if problems:
        raise UserError(f"{file}: {'; '.join(problems)}")
    return PeftConfig(file=file, values=values)


def _names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _text_or_names(value: Any) -> bool:
    return value is None or isinstance(value, str) or _names(value)


def _pattern_of(good: Callable[[Any], bool]) -> Callable[[Any], bool]:
    whole = lambda value: isinstance(value, dict) and all(map(good, value.values()))
    return lambda value: value is None or whole(value)


def _layer_numbers(value: Any) -> bool:
    whole = lambda number: isinstance(number, int) and not isinstance(number, bool)
    return value is None or whole(value) or (isinstance(value, list) and all(map(whole, value)))


_KINDS = {
    "target_modules": _text_or_names,
    "exclude_modules": _text_or_names,
    "layers_pattern": _text_or_names,
    "layers_to_transform": _layer_numbers,
    "rank_pattern": _pattern_of(is_count),
    "alpha_pattern": _pattern_of(is_positive),
    "use_rslora": lambda value: value is None or isinstance(value, bool),
}
