"""A user's own items are put to the model's tokenizer before anything is computed or written."""

from collections.abc import Mapping
from typing import Any

from antiimit_jax.errors import UserError
from antiimit_jax.language_model import LanguageModel
from antiimit_jax.scoring.packing import check_window
from antiimit_jax.scoring.trie import word_query
from antiimit_jax.tasks.user_items import UserItems


def check_items(lm: LanguageModel, forms: str, own: Mapping[str, Any]) -> None:
    """Checks all items among files of the user's own.

    Args:
      forms: what counts as saying a word.
      own: dotted name of a field -> what the file holds that it names.

    Raises:
      UserError: an item that cannot be put to the model, with its line.
    """
    for held in own.values():
        for number, item in enumerate(held.items if isinstance(held, UserItems) else (), 1):
            try:
                query = word_query(lm.tokenizer, lm.prompt(item.messages), item.words, forms=forms)
                check_window([query], lm.cfg.max_positions)
            except UserError as error:
                raise UserError(f"{held.path}: line {number}: {error}") from error
