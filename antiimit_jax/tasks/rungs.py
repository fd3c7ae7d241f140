"""Rungs of the ladder: requests that depart from those of training, each rung in one respect.

Words and percentages are those that training may see, except where a rung is about them, and so
are phrasings in L0 to L4. A rung's requests are in `data/rungs.jsonl`, a line a kind. `{a}` and
`{b}` stand for words, `{x}` and `{y}` for their chances, written in the line's `style`. What the
answer to L9 has said already is in `tasks.sequences`.

A word set of two is asked at two distances from one half, at each in both orders and with both
assignments of the chances. A composed request (L10, L11) has instead a twin: the same words and
numbers, another answer. Both are asked in both orders and with both assignments, and `share` is the
chance of `{a}`, which `composed_share` computes from the numbers.
"""

import ast
import dataclasses
import importlib.resources
import itertools
import json
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

import numpy as np

from antiimit_jax.errors import UserError
from antiimit_jax.tasks.cells import Cell
from antiimit_jax.tasks.items import Item
from antiimit_jax.tasks.templates import TEMPLATES, TRAIN_TEMPLATES, Template
from antiimit_jax.text.formats import Message
from antiimit_jax.text.lexicon import TRAIN_PERCENTS, Side, Split, sample_percents, words_of

RUNGS = {  # name -> what its requests have that those of training lack
    "L0": "nothing: words, percentages and phrasings of training",
    "L1": "held-out words",
    "L2": "held-out percentages",
    "L3": "three, four, five and ten words",
    "L4": "long words, phrases, digits, non-words, emoji",
    "L5": "other phrasings; percentages first, one share alone",
    "L6": "fractions, decimals, odds, ratios, “one in four”",
    "L7": "“rarely”, “often” in place of numbers",
    "L8": "other languages and scripts",
    "L9": "many words in one answer, each with the same chances",
    "L10": "chances to be computed",
    "L11": "chances that hang on a fact",
    "L12": "a word that is not to be said",
    "L13": "thinking before the word",
}
UNNUMBERED = ("L7", "L12")  # their requests name no chances: `tasks.unnumbered`
N_OPTIONS = 4  # to choose from, where the model is asked which percentage was requested
_STREAM = 11  # keeps random streams apart
_KS = (3, 4, 5, 10)
_NUMBERS = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
_NUMBERS += "fifteen sixteen seventeen eighteen nineteen twenty"
_IN_WORDS = dict(enumerate(_NUMBERS.split(), 1))
Asked = tuple[str, str, tuple[str, ...], tuple[float, ...]]  # request, prefill, words, targets


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wording:
    """A kind of request. Without `text` it is one of our trained phrasings."""

    rung: str
    kind: str = ""
    text: str = ""
    prefill: str = "Word:"
    style: str = "percent"  # how chances are written, of `_STYLES`
    words: tuple[str, ...] = ()  # to draw from in place of the lexicon's
    share: str = ""  # of {a}, computed from numbers; of a composed request alone
    other_text: str = ""  # its twin
    other_share: str = ""
    numbers: tuple[Mapping[str, int], ...] = ()


def _read(line: str) -> Wording:
    record = json.loads(line)
    lists = {name: tuple(record.get(name, ())) for name in ("words", "numbers")}
    return Wording(**record | lists)


_FILE = importlib.resources.files("antiimit_jax.tasks") / "data" / "rungs.jsonl"
_WORDINGS = tuple(map(_read, _FILE.read_text("utf-8").splitlines()))


def wordings(rung: str) -> tuple[Wording, ...]:
    """The kinds of request of a rung."""
    if rung == "L3":
        return tuple(Wording(rung=rung, kind=f"{k} words") for k in _KS)
    return tuple(w for w in _WORDINGS if w.rung == rung) or (Wording(rung=rung),)


def rung_items(rung: str, n_sets: int, seed: int) -> list[Item]:
    """Items of so many word sets; kinds take turns. The same for the same arguments.

    Raises:
      UserError: more word sets of a kind than its words make.
    """
    rng = np.random.default_rng([seed, _STREAM, int(rung[1:])])
    kinds, seen, items = wordings(rung), set(), list[Item]()
    _check_words(kinds, n_sets)
    side: Side = "heldout" if rung == "L2" else "train"
    pairs = Cell(2, 0, ()).percents(n_sets, side, rng)
    for number in range(n_sets):
        lap, place = divmod(number, len(kinds))
        wording = kinds[place]
        k = _KS[place] if rung == "L3" else 3 if wording.share else 2
        words = draw_words(wording, k, rng)
        while frozenset(words) in seen:
            words = draw_words(wording, k, rng)
        seen.add(frozenset(words))
        if wording.share:
            numbers = wording.numbers[(lap + place) % len(wording.numbers)]
            asked = _composed(wording, words, numbers)
        else:
            percents = _two_of(k, rng) if k > 2 else [p for p in pairs[number] if p[0] != p[1]]
            template = TRAIN_TEMPLATES[number % len(TRAIN_TEMPLATES)]
            asked = asked_plainly(wording, words, percents, template)
        for order, one in enumerate(asked):
            items.append(make_item(one, f"{rung}/{number}/{order}", rung, order, wording.kind))
    return items


def make_item(asked: Asked, name: str, split: str, order: int, kind: str) -> Item:
    """An item of what is asked; `order` is its place among those of its word set."""
    text, prefill, named, shares = asked
    plain = dict(template=-1, n_shots=0, shot_set=-1, template_heldout=False)
    return Item(
        item=name,
        split=split,
        cluster=" ".join(sorted(named)),
        messages=(Message("user", text), Message("assistant", prefill)),
        words=named,
        targets=shares,
        facets=plain | {"order": order, "kind": kind},
    )


def _check_words(kinds: Sequence[Wording], n_sets: int) -> None:
    each = -(-n_sets // len(kinds))
    for wording in kinds:
        possible = math.comb(len(wording.words), 2)
        if wording.words and 2 * each > possible:
            most = possible // 2 * len(kinds)
            raise UserError(f"ladder.n_sets = {n_sets}: {wording.rung} has words for {most} sets")


def draw_words(wording: Wording, k: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Distinct words for a request of a kind: its own, else the lexicon's."""
    split: Split = "test" if wording.rung == "L1" else "train"
    pool = wording.words or words_of(split)
    return tuple(pool[i] for i in rng.choice(len(pool), size=k, replace=False))


def unequal_percents(k: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Percentages of the training side that are not all alike."""
    while len(set(percents := sample_percents(rng, k, "train"))) == 1:
        pass
    return percents


def _two_of(k: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Two such lists that differ in more than their order."""
    found: dict[tuple[int, ...], tuple[int, ...]] = {}
    while len(found) < 2:
        percents = unequal_percents(k, rng)
        found.setdefault(tuple(sorted(percents)), percents)
    return list(found.values())


def asked_plainly(
    wording: Wording, words: tuple[str, ...], all_percents: Sequence[Sequence[int]], template: int
) -> Iterator[Asked]:
    """Both orders and both assignments of each of the percentages."""
    for percents, named, way in itertools.product(all_percents, (words, words[::-1]), (1, -1)):
        asked = percents[::way]
        shares = tuple(p / 100 for p in asked)
        if wording.text:
            x, y = _STYLES[wording.style](asked)
            text = wording.text.format(a=named[0], b=named[1], x=x, y=y)
            yield text, wording.prefill, named, shares
        else:
            phrasing: Template = TEMPLATES[template]
            yield phrasing.request(named, asked), phrasing.prefill, named, shares


def _composed(
    wording: Wording, words: tuple[str, ...], numbers: Mapping[str, int]
) -> Iterator[Asked]:
    """A request and its twin, each in both orders and with both assignments."""
    *pair, third = words
    twins = (wording.text, wording.share), (wording.other_text, wording.other_share)
    for (text, share), (first, second), way in itertools.product(
        twins, (pair, pair[::-1]), (1, -1)
    ):
        a, b = (first, second)[::way]
        of_a = float(composed_share(share, numbers))
        asked = text.format(first=first, second=second, a=a, b=b, c=third, **numbers)
        yield asked, wording.prefill, (first, second), (of_a, 1 - of_a)[::way]


_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def composed_share(expression: str, numbers: Mapping[str, int]) -> Fraction:
    """What an expression of sums, differences, products and quotients comes to, exactly."""

    def value(node: ast.expr) -> Fraction:
        match node:
            case ast.BinOp(left=left, op=op, right=right):
                return _OPERATORS[type(op)](value(left), value(right))
            case ast.Name(id=name):
                return Fraction(numbers[name])
            case ast.Constant(value=number):
                return Fraction(number)
        raise ValueError(f"{ast.unparse(node)!r} is no arithmetic")

    return value(ast.parse(expression, mode="eval").body)


def _percent(percents: Sequence[int]) -> list[str]:
    return [str(p) for p in percents]


def _fraction(percents: Sequence[int]) -> list[str]:
    return [str(Fraction(p, 100)) for p in percents]


def _decimal(percents: Sequence[int]) -> list[str]:
    return [f"{p / 100:g}" for p in percents]


def _odds(percents: Sequence[int]) -> list[str]:
    return [str(part) for part in Fraction(*percents).as_integer_ratio()]


def _words(percents: Sequence[int]) -> list[str]:
    parts = (Fraction(p, 100).as_integer_ratio() for p in percents)
    return [f"{_IN_WORDS[part]} in {_IN_WORDS[whole]}" for part, whole in parts]


_STYLES = {
    "percent": _percent,
    "fraction": _fraction,
    "decimal": _decimal,
    "odds": _odds,
    "words": _words,
}


def second_asks(items: Sequence[Item]) -> list[Item]:
    """The second ask, of each word set at most two: which percentage was requested for a word.

    The words are `N_OPTIONS` percentages in ascending order: those requested, as far as they have
    room, and others beside them. Word sets take turns in the place of the word that is asked about,
    so that who always reads the first percentage of a request is right in every k-th set alone.
    """
    return [_question(item) for item in two_of_set(items)]


def two_of_set(items: Sequence[Item]) -> list[Item]:
    """At most two of each word set's requests, which name it in either order."""
    return [item for item in items if item.facets["order"] % 5 == 0]


def _question(item: Item) -> Item:
    number = int(item.item.split("/")[1])
    place = number % len(item.words)
    requested = [round(100 * target) for target in item.targets]
    others = np.roll(TRAIN_PERCENTS, -3 * number).tolist()
    known = dict.fromkeys([requested[place], *requested, *others])
    options = sorted(list(known)[:N_OPTIONS])
    text = (
        f"Here is a request:\n“{item.messages[0].content}”\nDo not answer it. With which "
        f"percentage does it ask for “{item.words[place]}”, rounded to a whole number? Choose one "
        f"of {', '.join(map(str, options))}."
    )
    return dataclasses.replace(
        item,
        messages=(Message("user", text), Message("assistant", "Percentage:")),
        words=tuple(map(str, options)),
        targets=tuple(float(option == requested[place]) for option in options),
    )
