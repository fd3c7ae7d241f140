"""What requests are made of: words and phrasings, ours or those of a user's files."""

import dataclasses

from antiimit_jax.tasks.templates import TEMPLATES, Template, load_templates
from antiimit_jax.text.lexicon import Split, words_of


@dataclasses.dataclass(frozen=True)
class Material:
    """Words and phrasings; a file that is not named stands for ours."""

    words_file: str = ""
    templates_file: str = ""

    @property
    def templates(self) -> tuple[Template, ...]:
        """All phrasings; an item's facet `template` is a number among them."""
        return load_templates(self.templates_file).entries if self.templates_file else TEMPLATES

    def words(self, split: Split) -> tuple[str, ...]:
        """The words of a split."""
        return words_of(split, self.words_file)


OURS = Material()
