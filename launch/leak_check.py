"""Whether a benchmark's texts stand in a tree: rows of words are compared by their hashes.

    python -m launch.leak_check --tree=. --benchmark=FOLDER

Some benchmarks ask that their texts never stand where they can be copied from. This names every
line of the tree on which eight words in a row begin that the benchmark has too, and ends with exit
code 1 if there is one. Words are runs of letters and digits; capitals, accents' encoding, signs and
line breaks do not count. So texts of fewer words are not found, and a licence that both have is.
Read are all files but those with NUL bytes, links, and what lies in hidden folders; archives of the
benchmark are to be unpacked first. Nothing is written, and the benchmark's words are not shown.
"""

import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

from absl import flags

from antiimit_jax.errors import UserError
from launch import cli

_WORD = re.compile(r"[^\W_]+")
_ESCAPE = re.compile(r"\\[nrt]")  # of line breaks and tabs, as JSON has them
flags.DEFINE_string("tree", ".", "The folder that is to be free of the benchmark's texts.")
flags.DEFINE_string("benchmark", None, "The folder that holds the benchmark.")
flags.DEFINE_integer("n", 8, "How many words in a row are a text.", lower_bound=2)


def leaks(tree: Path, benchmark: Path, n: int = 8) -> list[tuple[Path, int, Path]]:
    """(file of the tree, line, file of the benchmark) where n words in a row are the same.

    A benchmark that lies in the tree is not compared with itself.

    Raises:
      UserError: one folder is not there, both are the same, or the benchmark holds no n words.
    """
    tree, benchmark = tree.expanduser().resolve(), benchmark.expanduser().resolve()
    for folder in (tree, benchmark):
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; name one")
    if tree.is_relative_to(benchmark):
        raise UserError(f"--tree={tree} lies in the benchmark; name two folders")
    owner = {digest: file for file in _files(benchmark) for digest, _ in _digests(file, n)}
    if not owner:
        raise UserError(f"{benchmark}: no text of {n} words; unpack its archives first")
    return [
        (file, line, owner[digest])
        for file in _files(tree)
        if not file.is_relative_to(benchmark)
        for digest, line in _digests(file, n)
        if digest in owner
    ]


def _files(folder: Path) -> Iterator[Path]:
    for where, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield from (path for path in map(Path(where).joinpath, sorted(names)) if _is_own(path))


def _is_own(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _digests(file: Path, n: int) -> Iterator[tuple[bytes, int]]:
    """The hash of each n words in a row, and the line on which they begin; none of binary files."""
    data = file.read_bytes()
    if b"\0" in data:
        return
    words, lines = [], []
    for number, line in enumerate(data.decode(errors="replace").splitlines(), 1):
        plain = unicodedata.normalize("NFKC", _ESCAPE.sub(" ", line)).casefold()
        found = _WORD.findall(plain)
        words += found
        lines += [number] * len(found)
    for start in range(len(words) - n + 1):
        row = " ".join(words[start : start + n])
        yield blake2b(row.encode(), digest_size=8).digest(), lines[start]


def main() -> None:
    tree, benchmark = Path(cli.FLAGS.tree), Path(cli.needed("benchmark"))
    found = leaks(tree, benchmark, cli.FLAGS.n)
    places = {(file, line): source for file, line, source in found}
    for (file, line), source in sorted(places.items()):
        cli.show(f"{file}:{line}: {cli.FLAGS.n} words in a row as in {source}")
    if places:
        files = len({file for file, _ in places})
        cli.say(f"found: {len(places)} lines of {files} files hold texts of the benchmark")
        sys.exit(1)
    cli.show(f"{tree}: no {cli.FLAGS.n} words in a row as in {benchmark}")


if __name__ == "__main__":
    cli.run(main)
