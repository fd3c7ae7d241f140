"""The configuration of a run: frozen dataclasses inside, a plain nested dict at the edge."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from antiimit_jax.errors import UserError
from antiimit_jax.evaluation.config import SUITES, ControlConfig, DriftConfig
from antiimit_jax.language_model import PROMPT_FORMATS
from antiimit_jax.models.catalog import near_misses
from antiimit_jax.models.lora import LoraConfig
from antiimit_jax.parallel import WEIGHTS
from antiimit_jax.scoring.terminators import POLICIES
from antiimit_jax.scoring.trie import FORMS
from antiimit_jax.training.config import DTYPES, TrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything a study depends on."""

    model: str = "smollm2-135m-instruct"
    revision: str = ""
    prompt_format: str = "auto"  # chat, base, or what the model is made for
    dtype: str = "auto"  # of the weights in evaluation: float32, bfloat16 or the backend's
    weights: str = "replicated"  # on several devices: a copy on each, or "sharded", a slice on each
    forms: str = "strict"  # what counts as saying a word
    terminators: str = "standard"  # what ends a word
    suites: tuple[str, ...] = SUITES
    seed: int = 0
    lora: LoraConfig = LoraConfig()
    train: TrainConfig = TrainConfig()
    control: ControlConfig = ControlConfig()
    drift: DriftConfig = DriftConfig()

    def on(self, backend: str) -> RunConfig:
        """The same with every `auto` dtype decided for "cpu" (float32), "gpu" or "tpu" (bfloat16).

        Products in float32 have the widest units of CPUs; accelerators are many times as fast in
        bfloat16, and their memory holds models of twice the size.
        """
        dtype = "float32" if backend == "cpu" else "bfloat16"
        decided = lambda config: {"dtype": dtype} if config.dtype == "auto" else {}
        train = dataclasses.replace(self.train, **decided(self.train))
        return dataclasses.replace(self, train=train, **decided(self))

    def check(self) -> None:
        """Raises UserError with everything that makes no sense, in one message."""
        problems = []
        for field, known in (
            ("prompt_format", PROMPT_FORMATS),
            ("dtype", DTYPES),
            ("weights", WEIGHTS),
            ("forms", FORMS),
            ("terminators", POLICIES),
        ):
            if getattr(self, field) not in known:
                problems.append(f"{field} {getattr(self, field)!r}: one of {', '.join(known)}")
        problems += [
            f"suites names {suite!r}; known: {', '.join(SUITES)}"
            for suite in self.suites
            if suite not in SUITES
        ]
        if self.seed < 0:
            problems.append(f"seed = {self.seed}: not negative")
        problems += self.control.problems() + self.drift.problems() + self.train.problems()
        if problems:
            raise UserError("config: " + "; ".join(problems))


def from_dict(values: Mapping[str, Any]) -> RunConfig:
    """A checked RunConfig; fields that are left out keep their defaults.

    Raises:
      UserError: unknown fields (with near misses), wrong types or values, all in one message.
    """
    problems: list[str] = []
    config = _build(RunConfig, values, "", problems)
    if problems:
        raise UserError("config: " + "; ".join(problems))
    config.check()
    return config


def to_dict(config: Any) -> dict[str, Any]:
    """The nested dict of a configuration, tuples as they are."""
    return {
        field.name: to_dict(value) if dataclasses.is_dataclass(value) else value
        for field in dataclasses.fields(config)
        for value in (getattr(config, field.name),)
    }


def field_names(cls: type = RunConfig, prefix: str = "") -> list[str]:
    """Dotted names of all fields."""
    names = []
    for name, kind in typing.get_type_hints(cls).items():
        nested = dataclasses.is_dataclass(kind)
        names += field_names(kind, f"{prefix}{name}.") if nested else [prefix + name]
    return names


def _build(cls: type, values: Mapping[str, Any], prefix: str, problems: list[str]) -> Any:
    kinds = typing.get_type_hints(cls)
    made = {}
    for name, value in values.items():
        dotted = prefix + name
        if name not in kinds:
            problems.append(f"unknown field {dotted}{near_misses(dotted, field_names())}")
        elif dataclasses.is_dataclass(kinds[name]):
            if isinstance(value, Mapping):
                made[name] = _build(kinds[name], value, dotted + ".", problems)
            else:
                problems.append(f"{dotted} must be a group of fields, not {value!r}")
        else:
            try:
                made[name] = _convert(kinds[name], value)
            except (TypeError, ValueError):
                problems.append(f"{dotted} = {value!r} is not {_described(kinds[name])}")
    return cls(**made)


def _convert(kind: Any, value: Any) -> Any:
    if isinstance(kind, types.GenericAlias):  # tuple[int, ...]
        if isinstance(value, str) or not hasattr(value, "__iter__"):
            raise TypeError
        return tuple(_convert(typing.get_args(kind)[0], part) for part in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise TypeError
    return value


def _described(kind: Any) -> str:
    if isinstance(kind, types.GenericAlias):
        return f"a list of {typing.get_args(kind)[0].__name__}"
    return {"int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false"}[
        kind.__name__
    ]
