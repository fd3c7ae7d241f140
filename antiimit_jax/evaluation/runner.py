"""Runs the core over many queries on a model's mesh; one `Runner` serves a whole evaluation."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from antiimit_jax.errors import UserError
from antiimit_jax.evaluation.rulers import each_changed
from antiimit_jax.language_model import LanguageModel
from antiimit_jax.models.decoder import Decoder
from antiimit_jax.models.quantized import format_of
from antiimit_jax.models.sharding import partition
from antiimit_jax.parallel import DataParallel, Devices, layout_of, make_mesh
from antiimit_jax.scoring.batching import BATCH_TOKENS, pack_batches
from antiimit_jax.scoring.generate import NOT_FINITE, greedy, pack_draws, sampled
from antiimit_jax.scoring.lexicon_search import (
    SEARCH_TOKENS,
    Lexicon,
    LexiconSearch,
    following,
    search_groups,
)
from antiimit_jax.scoring.packing import check_window
from antiimit_jax.scoring.top_words import Search, continuations
from antiimit_jax.scoring.trie import Ids, WordQuery, parts
from antiimit_jax.scoring.word_probs import words_at
from antiimit_jax.text.formats import Prompt
from antiimit_jax.trees import flat, nested

Tree = Any
SEARCH_ROUNDS = 5  # of the search for the most probable words
_SHOWN = 60  # characters of a prompt in a message


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordProbs:
    """The answer to one query."""

    q: np.ndarray  # [words] exact probabilities
    path_mass: np.ndarray  # [paths of the query] probability of each token path, properly ended

    @property
    def residual(self) -> float:
        """Probability of anything but the words."""
        return 1.0 - float(self.q.sum())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """A model to be asked: the base with an adapter, or with other weights. Trees are placed."""

    params: Tree
    adapter: Tree | None = None
    lora_scale: float = 1.0

    @property
    def variables(self) -> dict[str, Tree]:
        """The collections of `Decoder`."""
        return {"params": self.params} | ({"lora": self.adapter} if self.adapter else {})


class Place(NamedTuple):
    """Where the answer to a query is within a batch."""

    query: int
    sequence: int
    words: slice  # its slots in the sequence
    paths: slice


class Runner:
    """A base model placed once on the devices, and the compiled functions that ask it."""

    def __init__(self, lm: LanguageModel, devices: Devices | None = None) -> None:
        """On the model's own mesh, or on `devices` that each hold a copy."""
        self.lm = dataclasses.replace(lm, mesh=make_mesh(devices)) if devices else lm
        self.layout = layout_of(self.lm.mesh)
        self.base = self.with_params(lm.params)
        self._compiled: dict[tuple[Callable, float], DataParallel] = {}

    def adapted(self, adapter: Tree, lora_scale: float) -> Variant:
        """The base with an adapter."""
        adapter = self.layout.place(adapter)
        return dataclasses.replace(self.base, adapter=adapter, lora_scale=lora_scale)

    def with_params(self, params: Tree) -> Variant:
        """Weights of the base's shape."""
        return Variant(params=self.layout.place(params, self._specs(params)))

    def changed(self, change: Callable[[Tree], Tree]) -> Variant:
        """Weights that `change` makes of the base's, each placed before the next is made."""
        specs, made = flat(self._specs(self.lm.params)), each_changed(self.lm.params, change)
        put = lambda name, leaf: jax.block_until_ready(self.layout.place(leaf, specs[name]))
        return Variant(params=nested({name: put(name, leaf) for name, leaf in made}))

    def _specs(self, params: Tree) -> Tree:
        return partition(self.lm.cfg, self.layout.mesh, format_of(params))

    def map(
        self, fn: Callable, variant: Variant, arguments: Tree, batches: Sequence[Tree], empty: Tree
    ) -> Iterator[Tree]:
        """Results of `fn(decoder, *arguments, batch)` for each batch, data-parallel.

        Args:
          fn: compiled once for each batch shape.
          arguments: placed trees; the variant's variables come first by custom.
        """
        key = (fn, variant.lora_scale)
        if key not in self._compiled:
            decoder = Decoder(self.lm.cfg, lora_scale=variant.lora_scale)
            call = lambda placed, batch: fn(decoder, *placed, batch)
            self._compiled[key] = DataParallel(call, self.layout)
        return self._compiled[key](arguments, batches, empty)

    def word_probs(
        self,
        variant: Variant,
        queries: Sequence[WordQuery],
        *,
        terminators: str = "standard",
        temperature: float = 1.0,
        progress: Callable[[int], None] = lambda done: None,
        stage: str = "",
    ) -> list[WordProbs]:
        """Exact word probabilities of every query, in order.

        Args:
          stage: of a run, for messages.

        Raises:
          UserError: a prompt longer than the model's window, unknown terminators, or logits that
            are not finite.
        """
        check_window(queries, self.lm.cfg.max_positions)
        stops = self.lm.terminators.mask(terminators)
        asked = [(i, part) for i, query in enumerate(queries) for part in parts(query, stops)]
        answers = [
            WordProbs(q=np.zeros(query.n_words), path_mass=np.zeros(len(query.paths)))
            for query in queries
        ]
        fn, pieces = words_at(temperature), [part.query for _, part in asked]
        for result, places in self.ask(fn, variant, pieces, terminators, stage):
            for number, b, words, paths in places:
                i, part = asked[number]
                answers[i].q[part.words] = np.exp(result.log_q[b, words].astype(np.float64))
                mass = np.exp(result.path_log_mass[b, paths].astype(np.float64))
                answers[i].path_mass[part.paths] = mass
            progress(sum(asked[place.query][1].words[0] == 0 for place in places))
        return answers

    def top_words(
        self,
        variant: Variant,
        prompts: Sequence[Prompt],
        *,
        terminators: str = "standard",
        progress: Callable[[int], None] = lambda done: None,
        stage: str = "",
    ) -> list[Search]:
        """The most probable words after every prompt, searched round by round together.

        Args:
          stage: of a run, for messages.

        Raises:
          UserError: unknown terminators, or logits that are not finite.
        """
        n, searches = len(prompts), [Search(prompt, self.lm.tokenizer) for prompt in prompts]
        for number in range(SEARCH_ROUNDS):
            queries = [search.query() for search in searches]
            for result, where in self.ask(continuations, variant, queries, terminators, stage):
                for i, b, words, _ in where:
                    searches[i].learn(*(array[b, words] for array in result))
            progress(n * (number + 1) // SEARCH_ROUNDS - n * number // SEARCH_ROUNDS)
        return searches

    def lexicon_words(
        self,
        variant: Variant,
        groups: Sequence[Sequence[Ids]],
        lexicon: Lexicon,
        *,
        most: int,
        terminators: str = "standard",
        progress: Callable[[int], None] = lambda done: None,
        stage: str = "",
    ) -> list[list[LexiconSearch]]:
        """How probable a lexicon's words are after every prompt; those of a group are alike.

        Args:
          most: token paths that are asked for after a prompt.
          stage: of a run, for messages.

        Raises:
          UserError: a prompt longer than the model's window, or as `ask`.
        """

        def ask(queries: list[WordQuery]) -> Iterator[tuple[Tree, list[Place]]]:
            check_window(queries, self.lm.cfg.max_positions)
            return self.ask(following, variant, queries, terminators, stage, 0, SEARCH_TOKENS)

        return search_groups(groups, lexicon, most, ask, progress)

    def generate(
        self,
        variant: Variant,
        prompts: Sequence[Ids],
        where: np.ndarray,
        *,
        temperature: float,
        stage: str = "",
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[list[Ids]]:
        """Tokens of every prompt's continuations, with the one that ended them.

        Args:
          where: float32 [prompts, n, S], of `scoring.generate.places`: n continuations each of at
            most S tokens.
          temperature: 0 takes the most probable tokens.
          stage: of a run, for messages.

        Raises:
          UserError: see `pack_draws`; or logits are not finite.
        """
        ends = np.isin(np.arange(self.lm.cfg.vocab_size), list(self.lm.tokenizer.eos_ids))
        fn, arguments = greedy, (variant.variables, self.layout.place(ends))
        if temperature:
            fn, arguments = sampled, (*arguments, self.layout.place(np.float32(temperature)))
        found: list[list[Ids]] = [[] for _ in prompts]
        for work in pack_draws(prompts, where, self.lm.cfg, devices=self.layout.n_batches):
            results = self.map(fn, variant, arguments, work.batches, work.empty)
            for rows, tokens in zip(work.rows, results):
                tokens = tokens.reshape(-1, *tokens.shape[2:])
                for (i, first), row in zip(rows, tokens.tolist()):
                    if any(NOT_FINITE in said for said in row):
                        raise self.not_finite(variant, f"prompt {i + 1}", prompts[i], stage)
                    said = [tuple(t for t in one if t >= 0) for one in row]
                    found[i] += said[: where.shape[1] - first]
                    progress(min(len(said), where.shape[1] - first))
        return found

    def ask(
        self,
        fn: Callable,
        variant: Variant,
        queries: Sequence[WordQuery],
        terminators: str,
        stage: str = "",
        before: int = 0,
        batch_tokens: int = BATCH_TOKENS,
    ) -> Iterator[tuple[Tree, list[Place]]]:
        """Results of `fn(decoder, variables, stops, batch)`, and where each query's answer is.

        Args:
          stage, before: for messages: of a run, and how many queries were asked before these.

        Raises:
          UserError: a result is NaN, as it is where logits are not finite.
        """
        stops = self.lm.terminators.mask(terminators)
        arguments, n = (variant.variables, self.layout.place(stops)), self.layout.n_batches
        for work in pack_batches(queries, stops, batch_tokens=batch_tokens, devices=n):
            results = self.map(fn, variant, arguments, work.batches, work.empty)
            for rows, result in zip(work.queries, results):
                if any(np.isnan(leaf).any() for leaf in jax.tree.leaves(result)):
                    together = [i for row in rows for i in row]
                    for i in together if len(queries) > 1 else ():  # which of them alone
                        list(self.ask(fn, variant, [queries[i]], terminators, stage, before + i))
                    first = together[0]
                    prompt, ids = f"prompt {before + first + 1}", queries[first].prompt_ids
                    raise self.not_finite(variant, prompt, ids, stage)
                yield result, list(_places(rows, queries))

    def not_finite(self, variant: Variant, prompt: str, ids: Ids, stage: str) -> UserError:
        """What to say where the logits after a prompt are not finite."""
        dtype = str(variant.params["embed"]["embedding"].dtype)
        how = "a weight or a number in config.json must be wrong: fetch the model again"
        if dtype == "float16":
            how = "float16 ends at 65504: use float32 or bfloat16"
        elif variant.adapter:
            how = "the adapter is damaged, or not for this model, if the base alone gives some"
        who = f"{self.lm.source.name} in {dtype}" + (f", stage {stage}" if stage else "")
        begins = repr(self.lm.tokenizer.decode(ids)[:_SHOWN])
        what = f"{prompt}, which begins {begins}, has logits that are not finite"
        return UserError(f"{who}: {what} and so no probabilities; {how}")


def _places(rows: Sequence[Sequence[int]], queries: Sequence[WordQuery]) -> Iterator[Place]:
    """The queries of each sequence follow each other in its word and path slots."""
    for b, members in enumerate(rows):
        word = path = 0
        for i in members:
            words = slice(word, word + queries[i].n_words)
            paths = slice(path, path + len(queries[i].paths))
            word, path = words.stop, paths.stop
            yield Place(i, b, words, paths)
