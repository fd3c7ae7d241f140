"""Reads a packed batch back into prompts and words, from its index arrays alone."""

from __future__ import annotations

import dataclasses

import numpy as np

from antiimit_jax.scoring.packing import PackedBatch

Ids = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Slot:
    """One word slot: where it is, the prompts its paths hang behind, and its signed paths."""

    row: int
    slot: int
    item: int
    prompt: Ids
    terms: tuple[tuple[float, Ids], ...]  # (sign, path tokens)


def unpack(batch: PackedBatch) -> list[Slot]:
    """Every word of the batch; fails where a path's readouts are not where they must be."""
    slots = []
    for b, w in np.argwhere(batch.word_item >= 0):
        terms, prompts = [], set()
        for z, sign in zip(batch.word_path[b, w], batch.word_sign[b, w]):
            if sign:
                prompt, tokens = path_of(batch, b, z)
                terms.append((float(sign), tokens))
                prompts.add(prompt)
        assert len(prompts) == 1, "the paths of a word hang behind different prompts"
        item = int(batch.word_item[b, w])
        slots.append(Slot(int(b), int(w), item, prompts.pop(), tuple(terms)))
    return slots


def path_of(batch: PackedBatch, b: int, z: int) -> tuple[Ids, Ids]:
    """Prompt and tokens of a path."""
    tokens = tuple(int(t) for t in batch.path_token[b, z] if t >= 0)
    reads = [*batch.path_readout[b, z, : len(tokens)], batch.path_end[b, z]]
    places = [divmod(int(batch.read_at[read]), batch.forest.tokens.shape[1]) for read in reads]
    assert {row for row, _ in places} == {b}, "a readout of another row"
    seen = [visible_text(batch, b, at) for _, at in places]
    for n, text in enumerate(seen):
        assert text == seen[0] + tokens[:n], "a readout does not follow the path"
    return seen[0], tokens


def visible_text(batch: PackedBatch, b: int, at: int) -> Ids:
    """The tokens that token `at` of row b sees, itself last, in order of position."""
    forest = batch.forest
    trunk = forest.trunk_of[b]
    length = forest.trunk_length[trunk]
    before = [j for j in range(at + 1) if j <= at < forest.subtree_end[b, j]]
    positions = list(forest.positions[b, before])
    assert positions == list(range(length, length + len(before))), "positions have gaps"
    ids = [*forest.trunk_tokens[trunk, :length], *forest.tokens[b, before]]
    return tuple(int(i) for i in ids)
