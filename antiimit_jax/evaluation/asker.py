"""How a suite asks: `Asker`, and the one that asks a model on this machine's devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from antiimit_jax.errors import UserError
from antiimit_jax.evaluation.progress import Progress
from antiimit_jax.evaluation.runner import Runner, Variant, WordProbs
from antiimit_jax.language_model import in_float32
from antiimit_jax.results import BASE, Stage, Tables
from antiimit_jax.scoring.asks import Answer, Ask, FirstToken, Scoring, TextAnswer
from antiimit_jax.scoring.differences import differences, first_fit, sequence_tokens
from antiimit_jax.scoring.generate import Continuation, places
from antiimit_jax.scoring.lexicon_search import Lexicon, LexiconSearch
from antiimit_jax.scoring.texts import pack_texts
from antiimit_jax.scoring.top_words import Search
from antiimit_jax.scoring.trie import (
    Ids,
    WordQuery,
    first_token_query,
    in_context,
    mass_by_first_token,
    word_query,
)
from antiimit_jax.scoring.word_probs import next_token_probs
from antiimit_jax.tasks.neutral import NeutralPrompt
from antiimit_jax.text.formats import Message, Prompt, neutral_tokens

Tree = Any
Chats = Sequence[tuple[Message, ...]]


class Asker(Protocol):
    """One stage of a run, ready to be asked. `what` names the work on the progress bar.

    A suite that uses more than `words` lists what it needs in NEEDS; a model that lacks it skips
    the suite.
    """

    stage: Stage
    scoring: Scoring  # the run's own
    seed: int  # of what is drawn from the model
    eval_seed: int  # of items
    dtype: str  # of the weights
    exact: bool  # probabilities are read, not estimated from samples
    of_base: Tables  # that the base stage of this run wrote; none while it is asked itself

    def token_counts(self, words: Sequence[str]) -> list[int]:
        """In how many tokens the model writes each word behind a space; no model is run."""

    def words(
        self, asks: Sequence[Ask], *, what: str, scoring: Scoring | None = None
    ) -> list[Answer]:
        """Probabilities of every ask's words, in order; under the run's own scoring or another."""

    def first_tokens(
        self, asks: Sequence[Ask], *, what: str, scorings: Sequence[Scoring] | None = None
    ) -> list[FirstToken]:
        """How the answers begin, and what of it the asked words hold under each scoring.

        Under the run's own where nothing is said; under none, asks need no words.
        """

    def top_words(self, prompts: Chats, *, what: str) -> list[Search]:
        """The most probable words over the open vocabulary after each prompt, with their bound."""

    def lexicon_words(
        self, groups: Sequence[Chats], words: Iterable[str], *, what: str, most: int
    ) -> list[list[LexiconSearch]]:
        """Probabilities of a large lexicon's words after groups of chats that are much alike.

        At most so many token paths are asked for after each; the search says what that leaves.
        """

    def texts(self, texts: Sequence[NeutralPrompt], *, what: str) -> list[TextAnswer]:
        """This stage's next-token distributions on given texts, compared with the base's.

        Answers come in the order in which they were computed.
        """

    def generate(
        self, prompts: Chats, *, what: str, max_tokens: int, temperature: float = 1.0, n: int = 1
    ) -> list[list[Continuation]]:
        """n continuations of each prompt, of at most so many tokens; temperature 0 is greedy.

        What is drawn depends on the asker's seed, the prompt and the number of the sample alone.
        """

    @property
    def base(self) -> Asker:
        """The same model without an adapter."""

    @property
    def other(self) -> Asker | None:
        """A second model to compare with, where the run has one (`--against`)."""

    @property
    def stored(self) -> Asker:
        """The base in float32, with weights as precise as the checkpoint's."""

    def changed(self, change: Callable[[Tree], Tree]) -> Asker:
        """The base with changed weights; `change` is called with each of `each_changed`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocalAsker:
    """Asks a model on the devices of this machine; see `Asker`."""

    runner: Runner
    variant: Variant
    stage: Stage
    scoring: Scoring
    seed: int
    progress: Progress
    eval_seed: int = 0
    other: LocalAsker | None = None
    of_base: Tables = dataclasses.field(default_factory=dict)
    exact = True

    @property
    def dtype(self) -> str:
        return str(self.runner.lm.params["embed"]["embedding"].dtype)

    @property
    def base(self) -> LocalAsker:
        return dataclasses.replace(self, variant=self.runner.base, stage=BASE)

    @property
    def stored(self) -> LocalAsker:
        if self.dtype == "float32" and self.runner.lm.quantize == "none":
            return self.base
        runner = Runner(in_float32(self.runner.lm))
        return dataclasses.replace(self, runner=runner, variant=runner.base, stage=BASE)

    def changed(self, change: Callable[[Tree], Tree]) -> LocalAsker:
        return dataclasses.replace(self, variant=self.runner.changed(change))

    def token_counts(self, words: Sequence[str]) -> list[int]:
        tokenizer, spaced = self.runner.lm.tokenizer, [f" {word}" for word in words]
        tokenizer.read_ahead(spaced)
        return [len(tokenizer.encode_continued(text)) for text in spaced]

    def words(
        self, asks: Sequence[Ask], *, what: str, scoring: Scoring | None = None
    ) -> list[Answer]:
        found = self._word_probs(asks, self._prompts(asks), what, scoring or self.scoring)
        return [self._answer(query, probs) for query, probs in found]

    def _prompts(self, asks: Sequence[Ask]) -> list[Prompt]:
        return [self.runner.lm.prompt(ask.messages) for ask in asks]

    def _word_probs(
        self, asks: Sequence[Ask], prompts: Sequence[Prompt], what: str, rules: Scoring
    ) -> Iterator[tuple[WordQuery, WordProbs]]:
        lm, how = self.runner.lm, dict(forms=rules.forms, max_tokenisations=rules.tokenisations)
        asked = [(prompt, ask.words) for prompt, ask in zip(prompts, asks)]
        lm.tokenizer.read_ahead(text for one in asked for text in in_context(*one, rules.forms))
        queries = [word_query(lm.tokenizer, *one, **how) for one in asked]
        found = self.runner.word_probs(
            self.variant,
            queries,
            terminators=rules.terminators,
            temperature=rules.temperature,
            progress=self._bar(what, len(asks)),
            stage=self.stage.name,
        )
        return zip(queries, found)

    def _answer(self, query: WordQuery, probs: WordProbs) -> Answer:
        lengths: list[list[int]] = [[] for _ in range(query.n_words)]  # of each word's forms
        for path in query.paths:
            lengths[path.word].append(len(path.tokens))
        return Answer(
            q=probs.q,
            q_low=probs.q,
            q_high=probs.q,
            residual=probs.residual,
            prompt=self.runner.lm.tokenizer.decode(query.prompt_ids),
            prompt_ids=tuple(query.prompt_ids),
            form_counts=tuple(map(len, lengths)),
            token_counts=tuple(min(found, default=0) for found in lengths),
        )

    def first_tokens(
        self, asks: Sequence[Ask], *, what: str, scorings: Sequence[Scoring] | None = None
    ) -> list[FirstToken]:
        lm, prompts, said = self.runner.lm, self._prompts(asks), []  # by scoring, then by ask
        for rules in (self.scoring,) if scorings is None else scorings:
            found = self._word_probs(asks, prompts, f"{what}, {rules.forms} forms", rules)
            stops = lm.terminators.mask(rules.terminators)
            said.append(
                [
                    mass_by_first_token(q.paths, probs.path_mass.tolist(), stops)
                    for q, probs in found
                ]
            )
        spelled = lambda i: lm.tokenizer.decode([i]) or "\ufffd"  # rows that spell nothing
        texts = ["" if i in lm.tokenizer.eos_ids else spelled(i) for i in range(lm.cfg.vocab_size)]
        queries = [first_token_query(prompt.ids) for prompt in prompts]
        how = (self.variant, queries, self.scoring.terminators, self.stage.name)
        answers = {}
        for probs, where in self.runner.ask(next_token_probs, *how):
            for i, b, _, paths in where:
                p = probs[b, paths.start].astype(np.float64)
                held = tuple(of_asks[i] for of_asks in said)
                answers[i] = FirstToken(p=p / p.sum(), said=held, texts=texts)
        return [answers[i] for i in range(len(asks))]

    def top_words(self, prompts: Chats, *, what: str) -> list[Search]:
        return self.runner.top_words(
            self.variant,
            [self.runner.lm.prompt(messages) for messages in prompts],
            terminators=self.scoring.terminators,
            progress=self._bar(what, len(prompts)),
            stage=self.stage.name,
        )

    def lexicon_words(
        self, groups: Sequence[Chats], words: Iterable[str], *, what: str, most: int
    ) -> list[list[LexiconSearch]]:
        lm = self.runner.lm
        return self.runner.lexicon_words(
            self.variant,
            [[lm.prompt(messages).ids for messages in group] for group in groups],
            Lexicon(words, lm.tokenizer.id_of_piece),
            most=most,
            terminators=self.scoring.terminators,
            progress=self._bar(what, sum(map(len, groups))),
            stage=self.stage.name,
        )

    def generate(
        self, prompts: Chats, *, what: str, max_tokens: int, temperature: float = 1.0, n: int = 1
    ) -> list[list[Continuation]]:
        """Raises UserError where prompt and answer pass the model's window, or for bad numbers."""
        if max_tokens < 1 or n < 1 or temperature < 0:
            raise UserError(
                f"max_tokens={max_tokens}, n={n}, temperature={temperature}: ask for at least one "
                "token and one answer, at a temperature of 0 or more"
            )
        if not prompts:
            return []
        tokenizer, draws = self.runner.lm.tokenizer, n if temperature else 1
        ids = [self.runner.lm.prompt(messages).ids for messages in prompts]
        where = [places(self.seed, prompt, draws, max_tokens) for prompt in ids]
        found = self.runner.generate(
            self.variant,
            ids,
            np.array(where),
            temperature=temperature,
            stage=self.stage.name,
            progress=self._bar(what, len(prompts) * draws),
        )

        def read(said: Ids) -> Continuation:
            ended = said[-1] in tokenizer.eos_ids
            return Continuation(said, tokenizer.decode(said[: len(said) - ended]), ended)

        return [[read(said) for said in of_prompt] * (n // draws) for of_prompt in found]

    def texts(self, texts: Sequence[NeutralPrompt], *, what: str) -> list[TextAnswer]:
        """Raises UserError for a text longer than the model's window, or logits not finite."""
        runner, lm = self.runner, self.runner.lm
        read = [neutral_tokens(lm.tokenizer, t.messages, t.text, lm.prompt_format) for t in texts]
        longest = max(len(ids) for ids, _ in read)
        if longest > lm.cfg.max_positions:
            raise UserError(
                f"the longest unrelated text has {longest} tokens, the model's window is "
                f"{lm.cfg.max_positions}: lower drift.n_prompts or leave out the suite drift"
            )
        size = sequence_tokens(read)
        packed = first_fit([len(ids) for ids, _ in read], size)
        batches = [pack_texts([read[i] for i in members], size) for members in packed]
        both, empty = (runner.base.variables, self.variant.variables), pack_texts([], size)
        results = runner.map(differences, self.variant, both, batches, empty)
        bar, answers = self._bar(what, len(texts)), []
        for members, result in zip(packed, results):
            at = 0
            for i in members:
                ids, first = read[i]
                where, columns = slice(at + first, at + len(ids) - 1), result._asdict()
                found = {name: values[0, where].tolist() for name, values in columns.items()}
                if not all(np.isfinite(values).all() for values in found.values()):
                    text = f"unrelated text {i + 1}, or one computed with it"
                    raise runner.not_finite(self.variant, text, ids, self.stage.name)
                positions = list(range(first, len(ids) - 1))
                answers.append(TextAnswer(texts[i], positions, list(ids[first + 1 :]), found))
                at += len(ids)
            bar(len(members))
        return answers

    def _bar(self, what: str, total: int) -> Callable[[int], None]:
        return self.progress(f"{self.stage.name}: {what}", total)
