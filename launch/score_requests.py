"""What `launch.score` is asked for, from flags or files, checked before a model is loaded."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from antiimit_jax.errors import UserError
from antiimit_jax.json_files import read_json, read_json_lines
from antiimit_jax.language_model import LanguageModel
from antiimit_jax.scoring.trie import WordQuery, check_words, form_variants
from antiimit_jax.tasks.user_items import line_of, load_items, target_problem
from antiimit_jax.text.formats import Message, Prompt, chat_prompt

_TURNS = [{"role": str, "content": str}]
_LINE = {"prompt?": str, "messages?": _TURNS, "words": [str], "targets?": [float]}
_CHAT_HINT = 'a chat is a list of {"role": ..., "content": ...} with texts'
_LINE_HINT = 'a line is {"prompt": TEXT, "words": [...]}, or has "messages"; "targets" is optional'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """A prompt, and the words whose probabilities are asked after it."""

    where: str = ""  # it was written, for messages
    prompt: str | tuple[Message, ...]  # a text, or a chat
    words: tuple[str, ...]
    targets: tuple[float, ...] = ()  # the words' shares in percent or of 1, if any
    item: bool = False  # a chat that is read as evaluations read it: base models as plain text

    def __post_init__(self) -> None:
        """Raises UserError for words or targets that make no sense, or a chat without turns."""
        with self.located():
            check_words(self.words)
            shares(self.targets, self.words)
            if self.prompt == ():
                raise UserError(f"the chat is empty; {_CHAT_HINT}")

    @contextlib.contextmanager
    def located(self) -> Iterator[None]:
        """What is refused within is said with the place of the request."""
        try:
            yield
        except UserError as error:
            raise UserError(f"{self.where}: {error}" if self.where else str(error)) from error

    def stripped(self) -> "Request":
        """The same without white space at the end of its prompt."""
        if isinstance(self.prompt, str):
            return dataclasses.replace(self, prompt=self.prompt.rstrip())
        *turns, last = self.prompt
        last = dataclasses.replace(last, content=last.content.rstrip())
        return dataclasses.replace(self, prompt=(*turns, last))

    def oddities(self, query: WordQuery, raw: bool, forms: str) -> list[str]:
        """What a user should know of the query made from this: white space and dropped forms."""
        before, found = f"{self.where}: " if self.where else "", []
        end = self._open_text(raw)
        if end != end.rstrip():
            found.append(
                f"{before}the prompt ends in white space ({end[-12:]!r}), which models write with "
                "the next word: --strip leaves it out"
            )
        kept = {(path.word, path.text) for path in query.paths}
        for index, word in enumerate(self.words):
            for form in dict.fromkeys(form_variants(word, forms)):
                if (index, form) not in kept:
                    found.append(
                        f"{before}the form {form!r} is left out: the model has no tokens for it"
                    )
        return found

    def _open_text(self, raw: bool) -> str:
        """The text that the answer goes on from; empty where it begins a turn of its own."""
        if isinstance(self.prompt, str):
            return self.prompt if raw else ""
        return self.prompt[-1].content if self.prompt[-1].role == "assistant" else ""

    def read(self, lm: LanguageModel, raw: bool | None) -> Prompt:
        """The prompt as the model reads it; see `LanguageModel.read`.

        Raises:
          UserError: a chat for a model without a template, or what cannot be read.
        """
        if self.item:
            return lm.prompt(self.prompt)
        is_text = isinstance(self.prompt, str)
        if not (lm.tokenizer.hf.chat_template or is_text and lm.is_raw(raw)):
            raise UserError(
                f"{lm.source.name} has no chat template: give the prompt as text, with --raw"
            )
        if is_text:
            return lm.read(self.prompt, raw=raw)
        return chat_prompt(lm.tokenizer, self.prompt)


def shares(targets: Sequence[float], words: Sequence[str]) -> tuple[float, ...]:
    """Targets as shares that sum to 1; none where there are none.

    Raises:
      UserError: not one for each word, below 0, or of another sum than 1 or 100.
    """
    if targets and (problem := target_problem(targets, len(words))):
        raise UserError(problem)
    return tuple(target / math.fsum(targets) for target in targets)


def read_text(file: Path) -> str:
    """A prompt from a file, taken as it is.

    Raises:
      UserError: no such file, or not UTF-8.
    """
    try:
        return file.read_bytes().decode("utf-8")
    except FileNotFoundError as error:
        raise UserError(f"--prompt_file={file}: no such file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--prompt_file={file}: not UTF-8 ({error.reason})") from error


def read_messages(file: Path) -> tuple[Message, ...]:
    """A chat from a JSON file.

    Raises:
      UserError: no such file, not JSON, or not a list of objects with role and content.
    """
    turns = read_json(file, _TURNS, hint=_CHAT_HINT)
    if not turns:
        raise UserError(f"{file}: is empty; {_CHAT_HINT}")
    return _messages(turns)


def read_batch(file: Path) -> list[Request]:
    """The requests of a JSONL file, one a line.

    Raises:
      UserError: the first line that is none, with its number.
    """
    requests = []
    for number, line in enumerate(read_json_lines(file, _LINE, hint=_LINE_HINT).entries, 1):
        where = f"{file}: line {number}"
        if ("prompt" in line) == ("messages" in line):
            raise UserError(f"{where}: has both or none of prompt and messages; {_LINE_HINT}")
        prompt = line["prompt"] if "prompt" in line else _messages(line["messages"])
        words, targets = tuple(line["words"]), tuple(line.get("targets", ()))
        requests.append(Request(where=where, prompt=prompt, words=words, targets=targets))
    return requests


def read_items(file: Path) -> list[Request]:
    """The items of a JSONL file, as `launch.evaluate` asks them.

    Raises:
      UserError: as `load_items`.
    """
    return [
        Request(
            where=f"{file}: line {line_of(item)}",
            prompt=item.messages,
            words=item.words,
            targets=item.targets,
            item=True,
        )
        for item in load_items(str(file)).entries
    ]


def _messages(turns: Sequence[dict[str, Any]]) -> tuple[Message, ...]:
    return tuple(Message(**turn) for turn in turns)
