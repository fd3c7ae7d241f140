"""The toolkit in a notebook: load a model, read word probabilities, evaluate."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from antiimit_jax.configured import asker_of
from antiimit_jax.evaluation.asker import LocalAsker
from antiimit_jax.evaluation.runner import Runner, Variant
from antiimit_jax.evaluation.second import with_second
from antiimit_jax.language_model import LanguageModel, load_language_model
from antiimit_jax.models.peft import load_adapter
from antiimit_jax.reporting.report import schemas
from antiimit_jax.reporting.run_files import columns_of, to_table
from antiimit_jax.results import BASE, Row, Stage, Tables
from antiimit_jax.run_config import RunConfig, from_dict
from antiimit_jax.scoring.trie import word_query
from antiimit_jax.study import measure, score
from antiimit_jax.suites import SUITES
from antiimit_jax.suites.suite import joined

_OWN = Stage(name="adapter", kind="other")  # the model as it was loaded


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probabilities:
    """How probable each word is as the whole next answer, in the tokenizer's own tokens of it."""

    words: dict[str, float]
    residual: float  # probability of anything else, other tokens for the words included
    prompt: str  # as the model read it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A model on this machine's devices, with an adapter or without."""

    lm: LanguageModel
    runner: Runner
    variant: Variant  # the base, or the base with the adapter

    @overload
    def word_probs(self, prompt: str, words: Sequence[str]) -> Probabilities: ...
    @overload
    def word_probs(self, prompt: Sequence[str], words: Sequence[str]) -> list[Probabilities]: ...

    def word_probs(
        self, prompt, words, *, raw: bool | None = None, prefill: str = "", forms: str = "strict"
    ):
        """Exact word probabilities after a prompt, or after each of a list, as `launch.score`'s.

        A prompt is a user's turn for models with a chat format, else plain text.

        Args:
          raw: True for plain text, just as the tokenizer reads it; False for a turn.
          prefill: how the answer already begins.
          forms: "strict", with and without a leading space, or "lenient", other cases too.

        Raises:
          UserError: a word that cannot be tokenised, a prompt beyond the model's window, or a
            model that overflows.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        read = [self.lm.read(text, raw=raw, prefill=prefill) for text in prompts]
        queries = [word_query(self.lm.tokenizer, one, words, forms=forms) for one in read]
        found = [
            Probabilities(
                words=dict(zip(words, answer.q.tolist())),
                residual=answer.residual,
                prompt=self.lm.tokenizer.decode(one.ids),
            )
            for one, answer in zip(read, self.runner.word_probs(self.variant, queries))
        ]
        return found[0] if isinstance(prompt, str) else found

    def asker(self, stage: Stage, config: RunConfig) -> LocalAsker:
        """What suites ask: this model, as one stage of a run; the base without an adapter."""
        variant = self.runner.base if stage.kind == "base" else self.variant
        return asker_of(self.runner, variant, stage, config)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation gave."""

    table: list[Row]  # one dict a figure: pandas.DataFrame(evaluation.table)
    tables: Tables  # what the figures were computed from
    config: RunConfig


def load(
    model: str, *, adapter: str | Path = "", dtype: str = "auto", quantize: str = "none"
) -> Model:
    """A model by alias, hub id, folder or GGUF file, with the adapter of a folder.

    Args:
      quantize: "int8" or "nf4" to hold the layers' matrices in fewer bits.

    Raises:
      UserError: what does not exist or does not fit.
    """
    lm = load_language_model(model, dtype=dtype, quantize=quantize)
    runner = Runner(lm)
    read = load_adapter(Path(adapter), lm.cfg) if adapter else None
    variant = runner.adapted(read.tree, read.scale) if read else runner.base
    return Model(lm=lm, runner=runner, variant=variant)


def evaluate(
    model: Model,
    *,
    suites: Sequence[str] = tuple(SUITES),
    n_items: int | None = None,
    fields: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Runs suites on a model's base and, where it has one, its adapter (stage "adapter").

    Args:
      n_items: of every suite that counts items; else the configuration's. Control asks whole word
        sets, so that there the number is rounded up.
      fields: of the configuration, as nested dicts: {"control": {"splits": ["heldout_words"]}}.

    Raises:
      UserError: fields or suites that make no sense, or items that do not fit the model.
    """
    values: dict[str, Any] = {"suites": tuple(suites)} | dict(fields or {})
    for name in suites if n_items is not None else ():
        if hasattr(getattr(SUITES.get(name), "Config", None), "n_items"):
            values[name] = {"n_items": n_items} | dict(values.get(name, {}))
    config = from_dict({"quantize": model.lm.quantize} | values)
    stages = [BASE] + ([_OWN] if model.variant.adapter else [])
    found: list[Tables] = []
    for stage in stages:
        asker = with_second(model.asker(stage, config), config.against)
        of_base = found[0] if found else {}
        found.append(measure(dataclasses.replace(asker, of_base=of_base), config))
    tables = {
        name: columns_of(to_table(name, joined(f[name] for f in found if name in f), schema))
        for name, schema in schemas(SUITES).items()
        if any(name in f for f in found)
    }
    return Evaluation(table=score(tables, config, stages), tables=tables, config=config)
