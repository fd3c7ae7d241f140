"""The neutral prompts: well formed, the two uses apart in text, and no percentage asked for."""

from __future__ import annotations

import collections
import importlib.resources
import json
import re

import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.tasks import neutral

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


@pytest.mark.parametrize("use,least", [("drift", 90), ("anchor", 120)])
def test_counts_by_category(use, least):
    prompts = neutral.load_neutral(use)
    assert len(prompts) >= least
    counts = collections.Counter(p.category for p in prompts)
    assert set(counts) == set(neutral.CATEGORIES)
    assert min(counts.values()) >= 8


@pytest.mark.parametrize("use", USES)
def test_scored_parts_are_short_but_not_tiny(use):
    # Bytes stand in for tokens: an English token of the embedded tokenizer holds 3 to 5 of them.
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
