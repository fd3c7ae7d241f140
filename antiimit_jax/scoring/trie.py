"""From a word to its token paths: surface forms, tokenised after the prompt they answer.

Policies (recorded in every run): `strict` takes the word as given, with and without a leading
space; `lenient` adds a leading newline and the lower, Capitalised and UPPER spellings. Each form
counts in the tokens that the tokenizer itself writes it in; where others are not asked for, what a
model gives them belongs to the residual (the suite `scoring` measures it).
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

from antiimit_jax.errors import UserError
from antiimit_jax.text.formats import Prompt
from antiimit_jax.text.tokenizer import Tokenizer
from antiimit_jax.text.words import words_problem

FORMS = ("strict", "lenient")
_PART_TOKENS = 512
_MOST_TOKENS = 4096  # of words that cannot be asked apart
Ids = tuple[int, ...]  # of tokens


@dataclasses.dataclass(frozen=True)
class FormPath:
    """One way to say a word: its surface text, its tokens, the word's index in the item."""

    text: str
    tokens: Ids
    word: int
    canonical: bool = True  # False: a tokenisation the tokenizer itself would not choose


@dataclasses.dataclass(frozen=True)
class WordQuery:
    """One question to the model: after this prompt, how probable is each of these words?"""

    prompt_ids: Ids
    paths: tuple[FormPath, ...]
    n_words: int


@dataclasses.dataclass(frozen=True)
class Part:
    """Some words of a query, as a query of their own."""

    query: WordQuery
    words: list[int]  # their numbers in the whole query
    paths: list[int]


def form_variants(word: str, policy: str) -> list[str]:
    """The texts that count as saying `word`, most canonical first, with repeats.

    Each rule has its place: variant i of one word answers to variant i of another.
    """
    if policy == "strict":
        spellings, spaces = [word], ["", " "]
    elif policy == "lenient":
        spellings = [word, word.lower(), word[:1].upper() + word[1:], word.upper()]
        spaces = ["", " ", "\n"]
    else:
        raise UserError(f"forms policy {policy!r} unknown; use one of {', '.join(FORMS)}")
    return [space + spelling for spelling in spellings for space in spaces]


def in_context(prompt: Prompt, words: Sequence[str], forms: str) -> list[str]:
    """The texts that `word_query` reads with the tokenizer, to be read many at once."""
    return [prompt.tail + form for word in words for form in form_variants(word, forms)]


def word_query(
    tokenizer: Tokenizer,
    prompt: Prompt,
    words: Sequence[str],
    *,
    forms: str = "strict",
    max_tokenisations: int = 1,
) -> WordQuery:
    """Builds the token paths of every word after a prompt.

    A form's tokens are those that it has behind the prompt's text. Where the tokenizer would join
    its first character with the prompt's last one, they are those of the form as text that goes on:
    the prompt's tokens stand, and this is what a model writes behind them.

    Args:
      words: distinct, not empty, of any number of tokens.
      max_tokenisations: how many tokenisations of each form to count, canonical first.

    Raises:
      UserError: empty or repeated words, a word that no path can spell, words of which one has a
        form that another lacks, or two words with a form in common.
    """
    check_words(words)
    tail = tokenizer.encode_continued(prompt.tail)
    if prompt.ids[len(prompt.ids) - len(tail) :] != tail:
        raise UserError(
            f"the end of the prompt ({prompt.tail[-30:]!r}) does not tokenise by itself as it does "
            "in the prompt; end it after a whole word or sign"
        )
    paths: dict[Ids, FormPath] = {}
    lost: list[list[int]] = []  # of each word, the variants without tokens
    tokenizer.read_ahead(in_context(prompt, words, forms))
    for index, word in enumerate(words):
        variants = form_variants(word, forms)
        found = {form: _canonical(tokenizer, prompt.tail, tail, form) for form in variants}
        lost.append([i for i, form in enumerate(variants) if not found[form]])
        if not any(found.values()):
            raise UserError(
                f"word {word!r} cannot be spelled by any tokens of this model; choose another word"
            )
        if lost[index] != lost[0]:
            raise UserError(
                f"words {words[0]!r} and {word!r} do not have the same forms: this model has no "
                "tokens for some of one of them; choose other words"
            )
        for form, canonical in found.items():
            if not canonical:
                continue
            others = (cut for cut in _cuts(tokenizer, form) if cut != canonical)
            for tokens in (canonical, *itertools.islice(others, max_tokenisations - 1)):
                path = FormPath(form, tokens, index, tokens == canonical)
                other = paths.setdefault(tokens, path)
                if other.word != index:
                    raise UserError(
                        f"words {words[other.word]!r} and {word!r} share the form {form!r}: "
                        "choose other words or --forms=strict"
                    )
    return WordQuery(prompt.ids, tuple(paths.values()), len(words))


def first_token_query(prompt_ids: Ids) -> WordQuery:
    """Asks how the answer begins: its one path is empty."""
    return WordQuery(prompt_ids, (FormPath("", (), 0),), 1)


def _canonical(tokenizer: Tokenizer, text: str, ids: Ids, form: str) -> Ids:
    """The tokens of a form behind a text that has `ids`; none where characters have no token."""
    joined = tokenizer.encode_continued(text + form)
    stands = joined[: len(ids)] == ids and len(joined) > len(ids)
    tokens = joined[len(ids) :] if stands else tokenizer.encode_continued(form)
    spelled = b"".join(tokenizer.pieces[token] for token in tokens)
    dropped = spelled != form.encode() or tokenizer.hf.unk_token_id in tokens
    return () if dropped else tokens


def check_words(words: Sequence[str]) -> None:
    """Raises UserError for no words, or words that are empty, repeat or have spaces around."""
    if problem := words_problem(words) if words else "no words to score: name at least one":
        raise UserError(problem)


def _cuts(tokenizer: Tokenizer, form: str) -> Iterator[Ids]:
    """All ways to cut `form` into pieces, fewest tokens first."""
    data, ids_of = form.encode(), tokenizer.id_of_piece
    frontier: list[tuple[int, Ids]] = [(0, ())]  # (bytes spelled, tokens)
    while frontier:
        grown = []
        for start, tokens in frontier:
            for end in range(len(data), start, -1):
                token = ids_of.get(data[start:end])
                if token is not None and end == len(data):
                    yield (*tokens, token)
                elif token is not None:
                    grown.append((end, (*tokens, token)))
        frontier = grown


def event_parents(paths: Sequence[FormPath], stops: Sequence[bool]) -> list[int]:
    """Where one path's event lies inside another's: the innermost such path, or -1.

    The event "path z was said" is: z's tokens, then any terminator. If path z' continues z with a
    token that is itself a terminator ("rock" and "rock'n'roll"), its event lies inside z's, and its
    mass must be taken from z's so that the words stay disjoint.

    Args:
      stops: [V] true where a token is a terminator.
    """
    index = {path.tokens: i for i, path in enumerate(paths)}
    parents = []
    for path in paths:
        cuts = range(len(path.tokens) - 1, 0, -1)
        ended = (path.tokens[:cut] for cut in cuts if stops[path.tokens[cut]])
        parents.append(next((index[inner] for inner in ended if inner in index), -1))
    return parents


def mass_by_first_token(
    paths: Sequence[FormPath], mass: Sequence[float], stops: Sequence[bool]
) -> dict[int, float]:
    """What all words hold together, by the first token of their paths.

    Args:
      mass: of each path with its terminators (`path_mass`). An event inside another begins with the
        same token, so the outermost ones alone are summed.
      stops: [V] true where a token is a terminator.
    """
    found: dict[int, float] = {}
    for path, p, outer in zip(paths, mass, event_parents(paths, stops)):
        found[path.tokens[0]] = found.get(path.tokens[0], 0.0) + (p if outer < 0 else 0.0)
    return found


def parts(query: WordQuery, stops: Sequence[bool]) -> list[Part]:
    """A query of many words as several, whose answers together are its own, exactly.

    A word's probability depends on the paths of other words only where the event of one path lies
    inside that of another (`event_parents`): such words stay together.

    Raises:
      UserError: too many words lie inside one another.
    """
    lengths = [0] * query.n_words
    for path in query.paths:
        lengths[path.word] += len(path.tokens)
    if sum(lengths) <= 2 * _PART_TOKENS:
        return [Part(query, list(range(query.n_words)), list(range(len(query.paths))))]
    first = list(range(query.n_words))  # a word that it stays with, itself for the first of them

    def leader(word: int) -> int:
        while first[word] != word:
            first[word] = word = first[first[word]]
        return word

    for path, parent in zip(query.paths, event_parents(query.paths, stops)):
        if parent >= 0:
            first[leader(path.word)] = leader(query.paths[parent].word)
    together: dict[int, list[int]] = {}
    for word in range(query.n_words):
        together.setdefault(leader(word), []).append(word)
    filled: list[list[int]] = []
    room = 0
    for words in together.values():
        length = sum(lengths[word] for word in words)
        if length > _MOST_TOKENS:
            raise UserError(
                f"{len(words)} of the words begin one another and must be scored together: "
                "score fewer at a time"
            )
        if length > room:
            filled.append([])
            room = _PART_TOKENS
        filled[-1] += words
        room -= length
    part_of = {word: (part, i) for part, words in enumerate(filled) for i, word in enumerate(words)}
    own: list[list[int]] = [[] for _ in filled]
    for number, path in enumerate(query.paths):
        own[part_of[path.word][0]].append(number)
    inside = lambda path: dataclasses.replace(path, word=part_of[path.word][1])
    return [
        Part(
            WordQuery(query.prompt_ids, tuple(inside(query.paths[i]) for i in paths), len(words)),
            words,
            paths,
        )
        for words, paths in zip(filled, own)
    ]
