"""The answer of `launch.score` as a table for people."""

from collections.abc import Sequence

from antiimit_jax.evaluation.runner import WordProbs
from antiimit_jax.scoring.top_words import Search
from antiimit_jax.scoring.trie import WordQuery

_REST = "anything else"


def as_text(
    prompt: str, words: Sequence[str], query: WordQuery, answer: WordProbs, notes: Sequence[str]
) -> str:
    """The prompt as the model read it, then each word with its forms, then notes.

    Args:
      notes: further lines, such as `top_lines`.
    """
    width = max(len(word) for word in (*words, _REST))
    lines = ["prompt as the model reads it:", *_indented(prompt), ""]
    lines.append(f"{'word':<{width}}  {'p':>8}  as")
    for index, word in enumerate(words):
        forms = [
            f"{path.text!r} {shown(mass)}"
            for path, mass in zip(query.paths, answer.path_mass)
            if path.word == index
        ]
        lines.append(f"{word:<{width}}  {shown(answer.q[index]):>8}  {', '.join(forms)}")
    lines.append(f"{_REST:<{width}}  {shown(answer.residual):>8}")
    return "\n".join([*lines, *notes])


def top_lines(search: Search, most: int) -> list[str]:
    """The most probable words, each as the model would write it."""
    top = search.words[:most]
    lines = ["", "the most probable first words, whatever they are:"]
    lines += [f"  {shown(word.p):>8}  {word.text!r}" for word in top]
    return [*lines, f"  {shown(search.unvisited):>8}  left for words that were not found"]


def shown(p: float) -> str:
    """A probability: four decimals, or two digits where that would show nothing."""
    return f"{p:.4f}" if abs(p) >= 5e-4 or p == 0 else f"{p:.1e}"


def _indented(text: str) -> list[str]:
    return [f"  | {line}" for line in text.split("\n")]
