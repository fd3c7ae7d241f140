"""What a user's files hold is put to the model's tokenizer before anything is computed or written.

Messages name the file and the line.
"""

from collections.abc import Iterator, Mapping

from antiimit_jax.errors import UserError
from antiimit_jax.json_files import UserFile
from antiimit_jax.language_model import LanguageModel
from antiimit_jax.scoring.packing import check_window
from antiimit_jax.scoring.trie import word_query
from antiimit_jax.tasks.items import Item
from antiimit_jax.text.formats import Message
from antiimit_jax.text.lexicon import LexiconWord

_REQUEST = (Message("user", "Say a word."), Message("assistant", "Word:"))


def check_own(lm: LanguageModel, forms: str, own: Mapping[str, UserFile]) -> None:
    """Checks all items and words among files of the user's own.

    Args:
      forms: what counts as saying a word.
      own: dotted name of a field -> what the file holds that it names.

    Raises:
      UserError: an item that the model cannot be asked, or a word that it cannot say as others.
    """
    for held in own.values():
        for number, (messages, words) in enumerate(_asked(held), 1):
            try:
                query = word_query(lm.tokenizer, lm.prompt(messages), words, forms=forms)
                check_window([query], lm.cfg.max_positions)
            except UserError as error:
                raise UserError(f"{held.path}: line {number}: {error}") from error


def _asked(held: UserFile) -> Iterator[tuple[tuple[Message, ...], tuple[str, ...]]]:
    """What a model is asked for each line of a file; every word beside the first one."""
    first = held.entries[0]
    if isinstance(first, Item):
        yield from ((item.messages, item.words) for item in held.entries)
    elif isinstance(first, LexiconWord):
        words = (entry.word for entry in held.entries)
        yield from ((_REQUEST, tuple(dict.fromkeys((first.word, word)))) for word in words)
