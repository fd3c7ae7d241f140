"""Texts side by side in one row: each sees itself alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax

from antiimit_jax.scoring.texts import pack_texts, text_logits
from tests.enumeration import PlainModel


def test_a_row_by_hand():
    row = pack_texts([((5, 6, 7), 1), ((8, 9), 0), ((4, 4, 4), 2), ((3,), 0)], 7)
    assert row.forest.tokens.tolist() == [[5, 6, 7, 8, 9, 4, 4]]
    assert row.forest.positions.tolist() == [[0, 1, 2, 0, 1, 0, 1]]
    assert row.forest.subtree_end.tolist() == [[3, 3, 3, 5, 5, 7, 7]]
    assert row.scored.tolist() == [[0, 1, 1, 1, 1, 0, 0]]  # the cut text's scored part is gone


def test_a_row_with_room_left_is_padded():
    row = pack_texts([((5, 6), 0)], 5)
    assert row.forest.subtree_end.tolist() == [[2, 2, 0, 0, 0]]
    assert row.scored.tolist() == [[1, 1, 0, 0, 0]]


def test_a_text_in_company_has_the_predictions_it_has_alone(tiny):
    texts = [((10, 20, 30, 40), 1), ((7,), 0), ((99, 98, 97, 96, 95), 0)]
    row = pack_texts(texts, 12)
    found = log_softmax(np.asarray(text_logits(tiny.decoder, tiny.variables, row)), axis=-1)
    plain = PlainModel(tiny.decoder, tiny.variables, 8)
    expected = np.concatenate([plain.log_probs(ids) for ids, _ in texts])
    np.testing.assert_allclose(found[0, :10], expected, atol=1e-4)
    assert row.scored.sum() == pytest.approx(3 + 1 + 5)
