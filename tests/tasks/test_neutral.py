"""The neutral prompts: well formed, the two uses apart in text, and no percentage asked for."""

from __future__ import annotations

import collections
import importlib.resources
import json
import re

import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.models.catalog import CATALOG, embedded_file
from antiimit_jax.tasks import neutral
from antiimit_jax.text.formats import neutral_tokens
from antiimit_jax.text.tokenizer import load_tokenizer

USES = ("drift", "anchor")


def _all_text(prompt: neutral.NeutralPrompt) -> str:
    return "\n".join([prompt.text, *(m.content for m in prompt.messages)])


def _runs(text: str, n: int) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def test_every_record_is_read_and_the_file_carries_the_canary():
    source = importlib.resources.files("antiimit_jax.tasks") / "data" / "neutral.jsonl"
    lines = source.read_text("utf-8").splitlines()
    assert "canary" in json.loads(lines[0])
    assert len(lines) - 1 == sum(len(neutral.load_neutral(use)) for use in USES)


def test_ids_are_unique_and_texts_too():
    prompts = [p for use in USES for p in neutral.load_neutral(use)]
    assert len({p.id for p in prompts}) == len(prompts)
    assert len({p.scored for p in prompts}) == len(prompts)


def test_a_prompt_is_either_text_or_a_chat_that_ends_with_the_assistant():
    for prompt in (p for use in USES for p in neutral.load_neutral(use)):
        assert bool(prompt.text) != bool(prompt.messages), prompt.id
        if prompt.messages:
            roles = [m.role for m in prompt.messages if m.role != "system"]
            assert roles == ["user", "assistant"] * (len(roles) // 2), prompt.id
            assert all(m.content == m.content.strip() for m in prompt.messages), prompt.id
        assert prompt.scored, prompt.id


def test_counts_by_category():
    drift, anchor = (
        collections.Counter(p.category for p in neutral.load_neutral(use)) for use in USES
    )
    assert len(neutral.load_neutral("drift")) >= 300 and len(neutral.load_neutral("anchor")) >= 120
    assert len(drift) >= 10 and min(drift.values()) >= 8 and min(anchor.values()) >= 8
    held_out = set(drift) - neutral.anchor_categories()
    assert neutral.anchor_categories() == set(anchor) < set(drift)
    assert held_out == {"arithmetic", "data", "dialogue", "letters", "notices", "verse"}
    assert drift["arithmetic"] >= 35 and all(drift[name] >= 30 for name in held_out)


def test_ten_thousand_tokens_of_drift_texts_are_scored():
    tokenizer, scored = load_tokenizer(embedded_file(CATALOG["smollm2-135m-instruct"])), 0
    for prompt in neutral.load_neutral("drift"):
        ids, first = neutral_tokens(tokenizer, prompt.messages, prompt.text, "chat")
        scored += len(ids) - 1 - first
    assert scored >= 10_000


@pytest.mark.parametrize("use", USES)
def test_scored_parts_are_short_but_not_tiny(use):
    # Bytes stand in for tokens: one of the embedded tokenizer holds 3 to 5 of them in English and
    # 2 to 3 where there are many numbers.
    sizes = [len(p.scored.encode()) for p in neutral.load_neutral(use)]
    assert min(sizes) >= 80 and max(sizes) <= 320


def test_drift_and_anchor_share_no_wording():
    drift = set().union(*(_runs(_all_text(p), 6) for p in neutral.load_neutral("drift")))
    anchor = set().union(*(_runs(_all_text(p), 6) for p in neutral.load_neutral("anchor")))
    assert not drift & anchor


def test_percentages_are_facts_and_never_asked_for():
    asked = re.compile(r"probabilit|chance|percent|odds|of the time|randomly", re.IGNORECASE)
    for prompt in (p for use in USES for p in neutral.load_neutral(use)):
        text = _all_text(prompt)
        assert not asked.search(text), prompt.id
        if re.search(r"\d\s*%(?!\w)", text):
            assert prompt.category == "facts", prompt.id
            for message in prompt.messages[:-1]:
                assert "%" not in message.content, prompt.id


def test_unknown_use_is_refused():
    with pytest.raises(UserError, match="drift or anchor"):
        neutral.load_neutral("train")
