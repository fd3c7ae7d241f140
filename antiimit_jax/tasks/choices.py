"""Multiple-choice questions of others as items: how probable is the letter of each option?

A file is YAML, or JSON, which YAML holds, laid out as the question files of SAD are (so does
inspect-evals 0.28 read them, `sad/download_data.py`):

    samples:
    - id: q1
      body: Which of these is a river?
      choices_right: [the Nile]
      choices_wrong: [a spoon, Tuesday]

There is one right choice. Other keys are ignored, and values taken as they are written, so that an
unquoted `no` is a text too. Keys that YAML would merge (`<<`) are not.
"""

import dataclasses
import string
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from antiimit_jax.errors import UserError, first_line, quoted
from antiimit_jax.json_files import SURROGATE, read_text
from antiimit_jax.tasks.user_items import MOST_WORDS

_HINT = "give YAML with samples, each with body, choices_right and choices_wrong"
_OPEN = "Answer: ("  # how the answer begins; the letter of an option follows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """One question with its right option and at least one wrong one."""

    body: str
    right: str
    wrong: tuple[str, ...]


def load_questions(path: str, faults: list[str] | None = None) -> list[Question]:
    """The questions of a file.

    Args:
      faults: takes what is wrong with samples that are no questions; else that is raised.

    Raises:
      UserError: no such file, no YAML of that layout, no question, or the first that is none.
    """
    file = Path(path).expanduser()
    try:
        tree = yaml.compose(read_text(file, hint=_HINT), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UserError(f"{file}: {where}not valid YAML ({error.problem}); {_HINT}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"{file}: not valid YAML ({first_line(error)}); {_HINT}") from error
    samples = _values(tree).get("samples")
    if not isinstance(samples, yaml.SequenceNode) or not samples.value:
        raise UserError(f"{file}: has no samples; {_HINT}")
    questions, found = [], [] if faults is None else faults
    for node in samples.value:
        question = _question(node)
        if isinstance(question, Question):
            questions.append(question)
            continue
        found.append(f"{file}: line {node.start_mark.line + 1}: {question}")
        if faults is None:
            raise UserError(f"{found[0]}; {_HINT}")
    if not questions:
        raise UserError(f"{found[-1]} (of {len(samples.value)} samples none is a question)")
    return questions


def choice_items(questions: Iterable[Question]) -> Iterator[dict[str, Any]]:
    """Lines of a file of items: each question with its right option in each place once.

    The words are the letters, the whole target is on the right one's; a question is a cluster.
    """
    for number, question in enumerate(questions, 1):
        yield from _asked(question, f"question {number}")


def _asked(question: Question, cluster: str) -> Iterator[dict[str, Any]]:
    letters = string.ascii_uppercase[: len(question.wrong) + 1]
    for place, letter in enumerate(letters):
        options = [*question.wrong[:place], question.right, *question.wrong[place:]]
        lines = [f"({name}) {option}" for name, option in zip(letters, options)]
        asked = "\n".join([question.body, "", *lines])
        turns = {"user": asked, "assistant": _OPEN}
        yield {
            "messages": [{"role": role, "content": text} for role, text in turns.items()],
            "words": list(letters),
            "targets": [100.0 * (name == letter) for name in letters],
            "cluster": cluster,
            "facets": {"right": letter},
        }


def _values(node: Any) -> dict[str, Any]:
    """What a mapping holds by name; None where a name is there twice."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    values: dict[str, Any] = {}
    for key, value in pairs:
        if isinstance(key, yaml.ScalarNode):
            values[key.value] = None if key.value in values else value
    return values


def _texts(node: Any) -> list[str]:
    """The texts of a list; empty where it is none, or holds anything else."""
    parts = node.value if isinstance(node, yaml.SequenceNode) else []
    fit = all(isinstance(part, yaml.ScalarNode) and part.value.strip() for part in parts)
    return [part.value for part in parts] if fit else []


def _question(node: Any) -> Question | str:
    """A sample's question, or what keeps it from being one."""
    values = _values(node)
    if twice := [name for name, node in values.items() if node is None]:
        return f"{quoted(twice[0])} is there twice"
    body, right, wrong = (values.get(key) for key in ("body", "choices_right", "choices_wrong"))
    right, wrong = _texts(right), _texts(wrong)
    if not isinstance(body, yaml.ScalarNode) or not body.value.strip():
        return "no body, or one that is no text"
    if len(right) != 1:
        return f"{len(right)} texts in choices_right; give one"
    if not 1 <= len(wrong) < MOST_WORDS:
        return f"{len(wrong)} texts in choices_wrong; give 1 to {MOST_WORDS - 1}"
    options = [*right, *wrong]
    if twice := [option for option in options if options.count(option) > 1]:
        return f"option {quoted(twice[0])} is there twice"
    if any(SURROGATE.search(text) for text in (body.value, *options)):
        return "not valid Unicode"
    return Question(body=body.value, right=right[0], wrong=tuple(wrong))
