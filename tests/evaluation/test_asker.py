"""What a suite is told equals what brute force finds, one plain sequence at a time."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from antiimit_jax.evaluation.asker import LocalAsker
from antiimit_jax.evaluation.progress import silent
from antiimit_jax.evaluation.runner import Runner
from antiimit_jax.language_model import LanguageModel, load_language_model
from antiimit_jax.models.decoder import Decoder
from antiimit_jax.models.lora import LoraConfig
from antiimit_jax.results import BASE, Stage
from antiimit_jax.scoring.asks import Ask, Scoring
from antiimit_jax.text.formats import Message
from tests.enumeration import PlainModel, word_probabilities
from tests.random_decoder import random_adapter
from tests.tiny_model import write_tiny_model

WORDS = ("xylophone", "antidisestablishmentarianism", "rock", "rock'n'roll", "café")
LORA = LoraConfig(rank=2, alpha=6.0)
ASKS = [
    Ask(messages=(Message("user", request), Message("assistant", "Word:")), words=words)
    for request, words in (
        ("Say one word: rock 30%, café 70%.", WORDS),
        ("Which is it?", WORDS[::-1]),
        ("And now?", ("apple", "carpet")),
    )
]


@pytest.fixture(scope="module")
def lm(tmp_path_factory) -> LanguageModel:
    return load_language_model(str(write_tiny_model(tmp_path_factory.mktemp("m"), scale=0.3)))


@pytest.fixture(scope="module")
def adapter(lm):
    return random_adapter(lm.cfg, LORA, 3)


@pytest.fixture(scope="module")
def asker(lm, adapter) -> LocalAsker:
    runner = Runner(lm, jax.local_devices()[:2])
    variant = runner.adapted(adapter, LORA.scale)
    stage = Stage(name="mine", kind="other")
    return LocalAsker(
        runner=runner, variant=variant, stage=stage, scoring=Scoring(), seed=0, progress=silent
    )


def expected(lm: LanguageModel, plain: PlainModel, ask: Ask, scoring: Scoring) -> np.ndarray:
    """q of an ask's words from all their forms, each read by the tokenizer after the prompt."""
    text = lm.tokenizer.decode(lm.prompt(ask.messages).ids)
    encode = lambda text: lm.tokenizer.hf.encode(text, add_special_tokens=False)
    start = encode(text)
    spaces = ("", " ", "\n") if scoring.forms == "lenient" else ("", " ")
    paths = []
    for word in ask.words:
        spelled = dict.fromkeys((word, word.lower(), word[0].upper() + word[1:], word.upper()))
        forms = spelled if scoring.forms == "lenient" else (word,)
        whole = [encode(text + space + form) for form in forms for space in spaces]
        assert all(ids[: len(start)] == start for ids in whole)
        paths.append([tuple(ids[len(start) :]) for ids in whole])
    stops = lm.terminators.mask(scoring.terminators)
    return word_probabilities(plain, tuple(start), paths, stops)


@pytest.mark.parametrize(
    "scoring", [Scoring(), Scoring(terminators="wide"), Scoring(forms="lenient")]
)
@pytest.mark.parametrize("adapted", [True, False])
def test_words_equal_enumeration(lm, asker, adapter, scoring, adapted):
    variables = {"params": lm.params} | ({"lora": adapter} if adapted else {})
    plain = PlainModel(Decoder(lm.cfg, LORA.scale), variables, 80)
    asked = (asker if adapted else asker.base).words(ASKS, what="words", scoring=scoring)
    for ask, answer in zip(ASKS, asked, strict=True):
        q = expected(lm, plain, ask, scoring)
        np.testing.assert_allclose(np.log(answer.q), np.log(q), atol=1e-4)
        assert answer.residual == pytest.approx(1 - q.sum(), abs=1e-6)


@pytest.mark.parametrize("scoring", [Scoring(), Scoring(forms="lenient", tokenisations=4)])
def test_first_tokens_have_the_models_distribution_and_the_words_part_of_it(lm, asker, scoring):
    plain, size = PlainModel(Decoder(lm.cfg), {"params": lm.params}, 80), lm.tokenizer.size
    words = asker.base.words(ASKS, what="words", scoring=scoring)
    begun = asker.base.first_tokens(ASKS, what="first tokens", scorings=[scoring])
    for ask, answer, first in zip(ASKS, words, begun, strict=True):
        np.testing.assert_allclose(first.p, np.exp(plain.log_next(answer.prompt_ids)), rtol=1e-4)
        assert first.p.sum() == pytest.approx(1, abs=1e-12)
        (held,) = first.said
        assert sum(held.values()) == pytest.approx(answer.q.sum(), rel=1e-5)
        assert all(0 < p <= first.p[token] * (1 + 1e-5) for token, p in held.items())
        said = {first.texts[token].strip() for token in held} - {""}
        assert all(any(w.upper().startswith(t.upper()) for w in ask.words) for t in said)
        assert [i for i in range(size) if not first.texts[i]] == sorted(lm.tokenizer.eos_ids)
        assert first.texts[lm.tokenizer.encode_plain(" river")[0]] == " river"


def test_answers_are_exact_and_say_what_was_asked(lm, asker):
    assert asker.exact
    for ask, answer in zip(ASKS, asker.words(ASKS, what="words"), strict=True):
        np.testing.assert_array_equal(answer.q_low, answer.q)
        np.testing.assert_array_equal(answer.q_high, answer.q)
        assert answer.prompt_ids == lm.prompt(ask.messages).ids
        assert answer.prompt.endswith("assistant\nWord:")
        assert answer.form_counts == (2,) * len(ask.words)
        shortest = [
            min(len(lm.tokenizer.encode_plain(space + word)) for space in ("", " "))
            for word in ask.words
        ]
        assert list(answer.token_counts) == shortest
    assert max(asker.words(ASKS[:1], what="words")[0].token_counts) >= 4


def test_the_runs_own_scoring_is_used_unless_another_is_given(asker):
    own = dataclasses.replace(asker, scoring=Scoring(terminators="wide"))
    q = lambda asker, **scoring: np.concatenate(
        [a.q for a in asker.words(ASKS, what="words", **scoring)]
    )
    np.testing.assert_array_equal(q(own), q(asker, scoring=Scoring(terminators="wide")))
    assert (q(own) > q(asker)).all()


def test_the_base_has_no_adapter_and_changed_weights_answer_otherwise(asker):
    q = lambda asker: np.concatenate([a.q for a in asker.words(ASKS, what="words")])
    assert asker.base.stage == BASE
    doubled = asker.changed(lambda params: jax.tree.map(lambda leaf: 1.5 * leaf, params))
    for one, other in ((asker, asker.base), (asker.base, doubled)):
        assert np.abs(np.log(q(one)) - np.log(q(other))).max() > 1e-2


def test_progress_names_the_stage_and_counts_every_ask(asker):
    told = []

    def progress(what: str, total: int):
        told.append((what, total))
        return lambda done: told.append(done)

    dataclasses.replace(asker, progress=progress).words(ASKS, what="a few words")
    assert told[0] == ("mine: a few words", len(ASKS)) and sum(told[1:]) == len(ASKS)
