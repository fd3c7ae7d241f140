"""Makes the lexicon of rare words: `python -m tests.text.build_rare_words --scowl=FOLDER`.

FOLDER is that of the word lists in the Debian package scowl (/usr/share/dict/scowl). Rare are words
of levels 35 to 60 whose lemma and whose own spelling are outside levels 10 and 20, which hold some
12,500 most common words. Taken are lower-case words of 4 to 15 letters a-z whose lemma is such a
word too; left out are lists and spellings of names, abbreviations and contractions, all forms of
words that output control is trained on, and what the package better_profanity lists or what holds
one of `VULGAR`. Needs simplemma and better_profanity, both for this program only.
"""

from __future__ import annotations

import argparse
import collections
import importlib.resources
import re
from pathlib import Path

from antiimit_jax.text.lexicon import load_lexicon

FILE = importlib.resources.files("antiimit_jax.text") / "data" / "rare_words.txt"
CANARY = "# antiimit_jax canary 6f2dc4cb-c63b-4969-96d4-2051c75a4c5d: do not train on this file"
COMMON, RARE = (10, 20), (35, 40, 50, 55, 60)
VULGAR = re.compile(
    "fuck|shit|cunt|nigg|fag|whore|slut|wank|piss|arse$|arsed|turd|bitch|rapist|rapers?$|dagoe?s?$|"
    "honk(y|ies)|spics?$|boob|bugger|bastard|crapp|cretin|moron|harlot|incest|molest|sodom|porno|"
    "prostitut|masturb|sexpot|lynch|squaw|darkie|wetback|chink|halfwit|mulatto|retardate"
)


def listed(folder: Path, kind: str, levels: tuple[int, ...]) -> set[str]:
    """The words of lists of one kind at some levels, as all of English and as Americans spell."""
    files = [folder / f"{who}-{kind}.{n}" for who in ("english", "american") for n in levels]
    texts = [file.read_text("latin-1") for file in files if file.exists()]
    return {word for text in texts for word in text.split()}


def rare_words(folder: Path, vulgar: set[str]) -> dict[str, list[str]]:
    """Lemma -> its other forms, all rare."""
    import simplemma

    lemma_of = lambda word: simplemma.lemmatize(word, lang="en")
    names = listed(folder, "upper", RARE) | listed(folder, "proper-names", RARE)
    common = listed(folder, "words", COMMON)
    no_lemmas = common | set(map(lemma_of, common)) | vulgar
    no_lemmas |= {entry.lemma for entry in load_lexicon() if entry.split == "train"}
    no_words = common | vulgar | {name.lower() for name in names}
    lemmas = {
        word: lemma
        for word in listed(folder, "words", RARE) - no_words
        if re.fullmatch("[a-z]{4,15}", word) and not VULGAR.search(word)
        if (lemma := lemma_of(word)) not in no_lemmas
    }
    found = collections.defaultdict(list)
    for word, lemma in sorted(lemmas.items()):
        if lemmas.get(lemma) == lemma:
            found[lemma] += [word] if word != lemma else []
    return dict(sorted(found.items()))


def as_text(words: dict[str, list[str]]) -> str:
    """A lemma a line with its forms; "+s" is the lemma with an s behind it."""
    lines = [CANARY]
    for lemma, forms in words.items():
        short = (f"+{w.removeprefix(lemma)}" if w.startswith(lemma) else w for w in forms)
        lines.append(" ".join([lemma, *short]))
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scowl", type=Path, default=Path("/usr/share/dict/scowl"))
    vulgar = importlib.resources.files("better_profanity") / "profanity_wordlist.txt"
    words = rare_words(parser.parse_args().scowl, set(vulgar.read_text("utf-8").split()))
    FILE.write_text(as_text(words), "utf-8")
    print(f"{sum(map(len, words.values())) + len(words)} words of {len(words)} lemmas")


if __name__ == "__main__":
    main()
