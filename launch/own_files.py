"""What a user brings is put to the model before anything is computed or written.

Of files, messages name the file and the line.
"""

from collections.abc import Iterator, Mapping

from antiimit_jax.errors import UserError
from antiimit_jax.evaluation.second import check_second
from antiimit_jax.json_files import UserFile
from antiimit_jax.language_model import LanguageModel
from antiimit_jax.run_config import RunConfig
from antiimit_jax.scoring.packing import check_window
from antiimit_jax.scoring.trie import word_query
from antiimit_jax.suites import SUITES
from antiimit_jax.tasks.items import Item
from antiimit_jax.tasks.user_items import line_of
from antiimit_jax.text.formats import Message
from antiimit_jax.text.lexicon import LexiconWord
from launch import cli

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
        for number, messages, words in _asked(held):
            try:
                query = word_query(lm.tokenizer, lm.prompt(messages), words, forms=forms)
                check_window([query], lm.cfg.max_positions)
            except UserError as error:
                raise UserError(f"{held.path}: line {number}: {error}") from error


def _asked(held: UserFile) -> Iterator[tuple[int, tuple[Message, ...], tuple[str, ...]]]:
    """The number of each line of a file and what a model is asked for it.

    Every word is asked for beside the first one.
    """
    first = held.entries[0]
    if isinstance(first, Item):
        yield from ((line_of(item), item.messages, item.words) for item in held.entries)
    elif isinstance(first, LexiconWord):
        for number, entry in enumerate(held.entries, 1):
            yield number, _REQUEST, tuple(dict.fromkeys((first.word, entry.word)))


def check_asked(config: RunConfig) -> None:
    """Raises UserError where there is a second model, and no suite that would ask it."""
    asking = [name for name, suite in SUITES.items() if hasattr(suite, "ASKS_OTHER")]
    if config.against and not set(asking) & set(config.suites):
        hint = f"add {', '.join(asking)} to --suites"
        raise UserError(f"--against={config.against}: no suite asks a second model; {hint}")


def check_against(config: RunConfig, lm: LanguageModel) -> None:
    """Raises UserError where there is no such second model, or no suite that would ask it."""
    check_asked(config)
    adapter = check_second(config.against, lm)
    if adapter and not adapter.made_for(config.model):
        cli.say(f"note: --against was made for {adapter.base_model}, not {config.model}")
