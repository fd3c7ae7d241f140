"""The embedded model: logits of torch over chat and plain prompts, and sane greedy text."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from antiimit_jax.models.decoder import sequences
from antiimit_jax.text.formats import Message, text_prompt
from tests.models.llama_peer import assert_same_logits, forest_logits, torch_logits

PLAIN = [
    "The",
    "The capital of France is",
    "def add(a, b):\n    return a +",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. 12.5% of 3,480 is",
]
CHATS = [
    (Message("user", "Answer with one word: river or apple?"),),
    (
        Message("system", "You choose words by given percentages."),
        Message("user", "70% cat, 30% dog"),
        Message("assistant", "cat"),
        Message("user", "15% été, 85% 東京 🙂. Say one of them, nothing else."),
        Message("assistant", "The word is:"),
    ),
]


def _forest(rows: list[tuple[int, ...]]):
    """Rows padded on the right, to few different lengths: each is compiled anew."""
    T = -(-max(map(len, rows)) // 64) * 64
    tokens, ends = np.zeros((len(rows), T), np.int32), np.zeros((len(rows), T), np.int32)
    for i, ids in enumerate(rows):
        tokens[i, : len(ids)], ends[i, : len(ids)] = ids, len(ids)
    places = np.broadcast_to(np.arange(T, dtype=np.int32), tokens.shape)
    return sequences(*map(jnp.asarray, (tokens, places, ends)))


@pytest.fixture(scope="module")
def torch_smollm2(smollm2):
    """The same file, read and dequantised by transformers."""
    file = smollm2.source.path
    return AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    ).eval()


def test_logits_over_chat_and_plain_prompts_equal_those_of_torch(smollm2, torch_smollm2):
    rows = [text_prompt(smollm2.tokenizer, text).ids for text in PLAIN]
    rows += [smollm2.prompt(messages).ids for messages in CHATS]
    assert min(map(len, rows)) == 1 and max(map(len, rows)) > 40
    ours = np.asarray(forest_logits(smollm2.params, _forest(rows), smollm2.cfg))
    for row, ids in zip(ours, rows):
        theirs = torch_logits(torch_smollm2, np.array([ids]))[0]
        assert_same_logits(row[: len(ids)], theirs)
        np.testing.assert_array_equal(row[: len(ids)].argmax(-1), theirs.argmax(-1))


def _greedy(smollm2, ids: tuple[int, ...], steps: int) -> str:
    given = len(ids)
    for _ in range(steps):
        logits = forest_logits(smollm2.params, _forest([ids]), smollm2.cfg)
        ids = (*ids, int(logits[0, len(ids) - 1].argmax()))
    return smollm2.tokenizer.decode(ids[given:])


@pytest.mark.parametrize(
    "text, next_word", [("The capital of France is", " Paris"), ("One, two, three, four,", " five")]
)
def test_greedy_text_is_sane(smollm2, text, next_word):
    assert _greedy(smollm2, text_prompt(smollm2.tokenizer, text).ids, 3).startswith(next_word)


def test_a_greedy_chat_answer_is_sane_and_ends_its_turn(smollm2):
    question = Message("user", "What is the capital of France? Answer with one word.")
    answer = _greedy(smollm2, smollm2.prompt((question,)).ids, 12)
    assert "Paris" in answer.split("<|im_end|>")[0] and "<|im_end|>" in answer
