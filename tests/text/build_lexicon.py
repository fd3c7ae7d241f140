"""Makes or checks the lexicon's words.tsv: `python -m tests.text.build_lexicon --gguf=FILE`.

The choice of words is by hand: it is the `word` column itself. SCOWL's small list offers some
14,600 base forms that pass the rules below; 5,700 of them were kept by reading: words that a reader
of fifteen should know, no names, function words, number words, insults, or words of sex and
violence. Everything else is worked out here: each word is checked against the rules that a program
can check, then its lemma, split and token count follow.

Needs the Debian package wamerican-small (the word list) and simplemma (lemmas), both for this
program only, and the GGUF file whose tokenizer counts the tokens. To take words in, pass them in
--add; to take words out, delete their lines and run this; --candidates prints those that pass the
rules and are not taken.
"""

from __future__ import annotations

import argparse
import importlib.resources
import re
import sys
from pathlib import Path

from antiimit_jax.errors import UserError
from antiimit_jax.text.lexicon import lemma_split
from antiimit_jax.text.tokenizer import load_tokenizer

TABLE = importlib.resources.files("antiimit_jax.text") / "data" / "words.tsv"
SCOWL_SMALL = Path("/usr/share/dict/american-english-small")
HEADER = "word\tlemma\tsplit\ttokens"
CANARY = "# antiimit_jax canary 6f2dc4cb-c63b-4969-96d4-2051c75a4c5d: do not train on this file"

# Words that carry grammar or quantity, or that the prompts themselves use.
RESERVED = frozenset(
    """
    the and for that this these those with from into onto upon over under about after before between
    not nor but yet you she her his him they them their its our your who whom whose which what when
    where why how all any both each few more most other some such than too very can will shall may
    might must should would could are was were been being have has had does did done zero one two
    three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred
    thousand million billion trillion dozen first second third fourth fifth sixth seventh eighth
    ninth tenth half quarter double triple quadruple twice thrice single couple pair twin percent
    percentage percentile proportion portion fraction ratio rate odds chance likelihood probability
    probable random majority minority equal equality average maximum minimum frequency infinity word
    answer say choose choice pick respond response reply output token sentence sorry apology
    apologize yes
    """.split()
)


def words_of(path: Path) -> set[str]:
    """The lines of the word list.

    Raises:
      UserError: the list is not installed.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: install the Debian package wamerican-small")
    return set(path.read_text("utf-8").split())


def fault(word: str, listed: set[str], names: set[str], lemma: str) -> str | None:
    """Why a word may not be in the lexicon, or None."""
    if not re.fullmatch("[a-z]{3,11}", word):
        return "not 3 to 11 letters a-z"
    if word not in listed:
        return "not in SCOWL's small list"
    if word in names:
        return "also a proper name there"
    if lemma != word:
        return f"an inflected form of {lemma!r}"
    if word in RESERVED:
        return "a function, number or prompt word"
    return "looks inflected or derived" if _looks_inflected(word, listed) else None


def _looks_inflected(word: str, listed: set[str]) -> bool:
    """What simplemma leaves alone: gerunds, participles, plurals, comparatives, -ly and -ness."""
    for ending in ("ing", "ed"):
        stems = (stem for stem in _stems(word.removesuffix(ending)) if len(stem) > 2)
        if word.endswith(ending) and any(stem in listed for stem in stems):
            return True
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        if word[:-1] in listed or word[:-2] in listed or word[:-3] + "y" in listed:
            return True
    if word.endswith("er") and word[:-2] + "est" in listed:
        return True
    if word.endswith("est") and word[:-3] + "er" in listed:
        return True
    if word.endswith("ness"):
        return any(stem in listed for stem in _stems(word[:-4]))
    if word.endswith("ly"):
        return any(s in listed for s in (*_stems(word[:-2]), word[:-1] + "e", word[:-2] + "le"))
    return False


def _stems(rest: str) -> tuple[str, ...]:
    """Spellings a stem may have had before its ending: bake-ing, run-n-ing, happi-ness."""
    undoubled = rest[:-1] if len(rest) > 2 and rest[-1] == rest[-2] else rest
    return rest, rest + "e", undoubled, rest[:-1] + "y" if rest.endswith("i") else rest


def table(words: set[str], dictionary: Path, gguf: Path) -> tuple[str, list[str]]:
    """The text of words.tsv for these words, and one line for each word that breaks a rule."""
    listed = words_of(dictionary)
    names = {word.lower() for word in listed if word[:1].isupper()}
    tokenizer = load_tokenizer(gguf)
    lines, faults = [CANARY, HEADER], []
    for word in sorted(words):
        lemma = _lemma(word)
        why = fault(word, listed, names, lemma)
        if why:
            faults.append(f"{word}: {why}")
        count = len(tokenizer.encode_plain(" " + word))
        lines.append(f"{word}\t{lemma}\t{lemma_split(lemma)}\t{count}")
    return "\n".join(lines) + "\n", faults


def _lemma(word: str) -> str:
    import simplemma  # an extra of developers: the package itself reads the stored lemmas

    return simplemma.lemmatize(word, lang="en")


def stored_words() -> set[str]:
    """The hand-made choice: the first column of the table."""
    lines = TABLE.read_text("utf-8").splitlines() if TABLE.exists() else []
    return {line.split("\t")[0] for line in lines if not line.startswith("#") and line != HEADER}


def main() -> int:
    """Runs the program; the exit status is 1 where a check fails, 2 where something is missing."""
    try:
        return _run(_arguments())
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gguf", type=Path, required=True, help="file with the embedded tokenizer")
    parser.add_argument("--words", type=Path, default=SCOWL_SMALL, help="SCOWL's small list")
    parser.add_argument("--add", type=Path, help="file of further words to take in")
    parser.add_argument("--check", action="store_true", help="compare with the file, write nothing")
    parser.add_argument("--candidates", action="store_true", help="print words that could be taken")
    return parser.parse_args()


def _run(args: argparse.Namespace) -> int:
    """Writes, checks or extends the table."""
    chosen = stored_words()
    if args.candidates:
        listed = words_of(args.words)
        names = {word.lower() for word in listed if word[:1].isupper()}
        passing = (w for w in listed - chosen if fault(w, listed, names, _lemma(w)) is None)
        print("\n".join(sorted(passing)))
        return 0
    if args.add:
        chosen |= set(args.add.read_text("utf-8").split())
    text, faults = table(chosen, args.words, args.gguf)
    if faults:
        print("\n".join(faults))
        return 1
    if args.check:
        same = text == TABLE.read_text("utf-8")
        print("words.tsv is up to date" if same else "words.tsv differs: run without --check")
        return 0 if same else 1
    TABLE.write_text(text, "utf-8")
    print(f"{len(chosen)} words in {TABLE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
