"""The configuration of a run: frozen dataclasses inside, a plain nested dict at the edge."""

import dataclasses
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any

from antiimit_jax.errors import UserError, near_misses
from antiimit_jax.fields import (
    between,
    bounded,
    count,
    free,
    leaves,
    one_of,
    own_fields,
    own_file,
    own_files,
    problems,
    share,
)
from antiimit_jax.json_files import UserFile
from antiimit_jax.language_model import PROMPT_FORMATS
from antiimit_jax.models.lora import LoraConfig
from antiimit_jax.models.quantized import FORMATS
from antiimit_jax.models.weights import fitting_dtype
from antiimit_jax.parallel import AUTO, MESHES, is_mesh
from antiimit_jax.results import BASE, Stage, adapter_stage
from antiimit_jax.scoring.asks import Program, Scoring
from antiimit_jax.scoring.terminators import POLICIES
from antiimit_jax.scoring.trie import FORMS
from antiimit_jax.suites import SUITES
from antiimit_jax.tasks.templates import load_templates
from antiimit_jax.text.chat_templates import PROMPT_DATE, is_date
from antiimit_jax.text.lexicon import load_words
from antiimit_jax.training.config import DTYPES, TrainConfig

PART = dict.fromkeys(("lora", "train"), "training")  # group of fields -> what reads it; else both
PART |= dict.fromkeys((*SUITES, "suites", "against", "n_boot", "eval_seed", "seed"), "evaluation")
_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Common:
    """What a study depends on besides its suites."""

    model: str = free("smollm2-135m-instruct", "alias, hub id, folder or .gguf file")
    revision: str = free("", "of a model from the hub; empty: its newest")
    prompt_format: str = one_of(PROMPT_FORMATS, "auto", "auto: what the model is made for")
    prompt_date: str = bounded(
        PROMPT_DATE, "a date as 2026-01-31", is_date, "today's date in chat templates"
    )
    dtype: str = one_of(DTYPES, "auto", "of the weights in evaluation")
    quantize: str = one_of(FORMATS, "none", "the layers' matrices in fewer bits, adapters on top")
    mesh: str = bounded(AUTO, MESHES, is_mesh, "of devices: those of a row split the weights")
    forms: str = one_of(FORMS, "strict", "what counts as saying a word")
    terminators: str = one_of(POLICIES, "standard", "what ends a word")
    suites: tuple[str, ...] = one_of(SUITES, tuple(SUITES), "what is evaluated")
    against: str = free("", "a second model, or an adapter, that introspection compares with")
    n_boot: int = count(0, 2000, "resamples of every interval")
    eval_seed: int = between(0, 2**32 - 1, 0, "of the items of an evaluation")
    seed: int = between(0, 2**32 - 1, 0, "of the rest: resamples and drawn answers")
    words_file: str = own_file(load_words, "your own words, in place of ours")
    templates_file: str = own_file(load_templates, "your own phrasings: all of them, not ours")
    lora: LoraConfig = LoraConfig()
    train: TrainConfig = TrainConfig()

    def __post_init__(self) -> None:
        for name in ("train", *SUITES):
            object.__setattr__(self, name, share(getattr(self, name), self))

    def of(self, suite: str) -> Any:
        """The configuration of a suite."""
        return getattr(self, suite)

    @property
    def rule(self) -> Scoring:
        """What counts as saying a word in this run."""
        return Scoring(forms=self.forms, terminators=self.terminators)

    def programs(self, *, second: bool = False) -> list[Program]:
        """What its suites ask of a model; of a second one, what those do that ask it too."""
        marks = ("programs", "ASKS_OTHER") if second else ("programs",)
        asked = [name for name in self.suites if all(hasattr(SUITES[name], mark) for mark in marks)]
        of = lambda name: SUITES[name].programs(self.of(name), self.eval_seed, self.rule)
        return [program for name in asked for program in of(name)]

    def stages(self) -> list[Stage]:
        """The base, then a tuned and a placebo adapter for each training seed."""
        seeds = range(len(self.train.seeds))
        return [BASE, *(adapter_stage(kind, i) for i in seeds for kind in ("tuned", "placebo"))]

    def on(self, backend: str, *, bfloat16: bool = False) -> "RunConfig":
        """The same with every `auto` dtype decided for "cpu", "gpu" or "tpu" (`fitting_dtype`).

        `bfloat16` says of a CPU that it multiplies bfloat16 faster: training uses that.
        """
        decided = lambda cfg: dataclasses.replace(cfg, dtype=fitting_dtype(cfg.dtype, backend))
        train = decided(self.train)
        if self.train.dtype == "auto" and bfloat16:
            train = dataclasses.replace(train, dtype="bfloat16")
        return dataclasses.replace(decided(self), train=train)


RunConfig = dataclasses.make_dataclass(
    "RunConfig",
    [(name, suite.Config, suite.Config()) for name, suite in SUITES.items()],
    bases=(_Common,),
    frozen=True,
    kw_only=True,
)


def from_dict(values: Mapping[str, Any]) -> RunConfig:
    """A checked RunConfig; fields that are left out keep their defaults.

    Raises:
      UserError: unknown fields (with near misses), wrong types or values, all in one message.
    """
    found: list[str] = []
    config = _build(RunConfig, values, "", found)
    if found := found or problems(config):
        raise UserError("config: " + "; ".join(found))
    return config


def to_dict(config: Any) -> dict[str, Any]:
    """The nested dict of a configuration, tuples as they are."""
    return {
        field.name: to_dict(value) if dataclasses.is_dataclass(value) else value
        for field in own_fields(config)
        for value in (getattr(config, field.name),)
    }


def field_names() -> list[str]:
    """Dotted names of all fields."""
    return list(leaves(RunConfig()))


def is_read(name: str, parts: Collection[str]) -> bool:
    """Whether "training" or "evaluation", those of `parts`, read the field of a dotted name."""
    part = PART.get(name.partition(".")[0])
    return part is None or part in parts


def read_own_files(config: RunConfig, parts: Collection[str]) -> dict[str, UserFile]:
    """Dotted name of a field that the parts read -> what the user's file holds that it names.

    Raises:
      UserError: a file cannot be read, or is not what it should be.
    """
    named = {name: file for name, file in own_files(config).items() if is_read(name, parts)}
    return {name: load(path) for name, (path, load) in named.items() if path}


def _build(cls: type, values: Mapping[str, Any], prefix: str, found: list[str]) -> Any:
    hints, made = typing.get_type_hints(cls), {}
    kinds = {field.name: hints[field.name] for field in own_fields(cls)}
    for name, value in values.items():
        dotted = prefix + name
        if name not in kinds:
            found.append(f"unknown field {dotted}{near_misses(dotted, field_names())}")
        elif dataclasses.is_dataclass(kinds[name]):
            if isinstance(value, Mapping):
                made[name] = _build(kinds[name], value, dotted + ".", found)
            else:
                found.append(f"{dotted} must be a group of fields, not {value!r}")
        else:
            try:
                made[name] = _convert(kinds[name], value)
            except (TypeError, ValueError, OverflowError):  # the last: 400 digits for a number
                found.append(f"{dotted} = {value!r} is not {_described(kinds[name])}")
    return cls(**made)


def _convert(kind: Any, value: Any) -> Any:
    if isinstance(kind, types.GenericAlias):  # tuple[int, ...]
        if isinstance(value, str) or not hasattr(value, "__iter__"):
            raise TypeError
        of, parts = typing.get_args(kind)[0], tuple(value)
        are_names = of is str and all(isinstance(part, str) for part in parts)
        if are_names:  # of which a flag gives "L7,L9" as one
            parts = tuple(name.strip() for part in parts for name in part.split(","))
        return tuple(_convert(of, part) for part in parts)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise TypeError
    return value


def _described(kind: Any) -> str:
    if isinstance(kind, types.GenericAlias):
        return f"a list of {typing.get_args(kind)[0].__name__}"
    return _KINDS[kind]
