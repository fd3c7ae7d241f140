"""Which runs a comparison of models still lacks, as the commands that make them."""

import collections
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from antiimit_jax.models.catalog import CATALOG, alias_of, entry_of, pair_of, series_of
from antiimit_jax.reporting.rows import plain_text

FORMATS = ("base", "chat")
TEMPLATE = "where its files have no chat template, as a folder with the counterpart's added"
Ask = Callable[[str, str], str]  # (model, format) -> the command that asks it
Cell = tuple[str, bool, str]  # a pair, whether the post-trained one of it, a format


def ask_command(program: str, config: Path, revision: str) -> Ask:
    """Commands that ask other models what a run was asked whose config.json this is.

    Args:
      revision: of that run's model, which others do not have.
    """

    def command(model: str, style: str) -> str:
        flags = {
            "--config": config,
            "--model": model,
            **({"--revision": ""} if revision else {}),
            "--suites": "control,residual",
            "--config.prompt_format": style,
            "--workdir": f"runs/{Path(model).name}-{style}",
        }
        given = (shlex.quote(f"{key}={of}") for key, of in flags.items())
        return plain_text(" ".join([program, *given]))

    return command


def other_sizes(asked: Iterable[tuple[str, str]], ask: Ask) -> list[str]:
    """What asks the next size of each model's series in the same format.

    Args:
      asked: models and formats.
    """
    commands = []
    for model, style in asked:
        entry = entry_of(model)
        if entry is None:
            continue
        alias, series = alias_of(entry), series_of(entry)
        alike = [
            other
            for other, one in CATALOG.items()
            if (series_of(one), one.prompt_format) == (series, entry.prompt_format)
            and alias_of(one) == other
        ]
        place = alike.index(alias)
        commands += [ask(other, style) for other in [*alike[place + 1 :], *alike[:place][::-1]][:1]]
    return list(dict.fromkeys(commands)) or ["a run of another size of a model that is here"]


def not_asked(asked: Mapping[Cell, str], ask: Ask) -> list[str]:
    """What fills the empty cells of each pair: two models by two formats; fullest pairs first.

    Args:
      asked: the cells that are there -> the model's name.
    """
    names = {(pair, post): name for (pair, post, _), name in asked.items()}
    count = collections.Counter(pair for pair, _, _ in asked)
    needed = []
    for pair, _ in count.most_common():
        for post in (False, True):
            name = names.get((pair, post)) or _released(pair, post)
            for style in FORMATS:
                if (pair, post, style) in asked:
                    continue
                if not name:
                    kind = "post-trained" if post else "base"
                    needed.append(f"the {kind} model of {pair}, in {style} format")
                elif style == "chat" and not post:
                    needed.append(f"{ask(name, style)}  # {TEMPLATE}")
                else:
                    needed.append(ask(name, style))
    return needed


def _released(pair: str, post_trained: bool) -> str:
    """The alias of one of a pair in the catalog; "" where it knows none."""
    entry = CATALOG.get(pair)
    if entry is None or pair_of(entry) != pair:
        return ""
    return entry.counterpart if post_trained else pair
