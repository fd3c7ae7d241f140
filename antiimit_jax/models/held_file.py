"""Files that stay open while a model is read, and tell whether their places still hold them."""

import functools
import hashlib
import mmap
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from antiimit_jax.errors import UserError


class HeldFile:
    """One file, open for reading until nobody holds this object."""

    def __init__(self, path: Path) -> None:
        """Opens the file.

        Raises:
          UserError: it cannot be opened.
        """
        self.path = path
        try:
            self._handle = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
        weakref.finalize(self, os.close, self._handle)
        self._was = _state(self._handle)

    @property
    def size(self) -> int:
        """Bytes, when it was opened."""
        return self._was[2]

    @functools.cached_property
    def map(self) -> mmap.mmap:
        """Its bytes, read when they are used."""
        return mmap.mmap(self._handle, 0, access=mmap.ACCESS_READ)

    def stat(self) -> os.stat_result:
        """As its place has it, unless another file has taken that."""
        return os.fstat(self._handle)

    def reader(self) -> BinaryIO:
        """The file from its beginning; one reader at a time."""
        file = open(self._handle, "rb", closefd=False)
        file.seek(0)
        return file

    def sha256(self) -> str:
        """The hash of its contents, as hex."""
        with self.reader() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def read_into(self, place: np.ndarray, start: int, what: str) -> None:
        """Fills an array of bytes from the byte `start` of the file on.

        Raises:
          UserError: the file has become shorter; `what` was read.
        """
        rest = memoryview(place)
        while rest:  # a call of the kernel reads 2 GiB at most
            count = os.preadv(self._handle, [rest], start)
            if not count:
                raise UserError(f"{self.path}: ends within {what}; fetch it again")
            rest, start = rest[count:], start + count

    def check_unchanged(self) -> None:
        """Raises UserError where the file was written to, or another has taken its place."""
        try:
            same = _state(self.path) == self._was
        except OSError:  # it is gone
            same = False
        if not same:
            what = "was replaced or written to while it was read"
            raise UserError(f"{self.path}: {what}; start again when nobody writes to it")


class HeldFiles:
    """Some files of a folder, or a file alone: `files`, by their names below the folder."""

    def __init__(self, path: Path, patterns: Sequence[str]) -> None:
        """Opens a file, or those of a folder that match one of the patterns (`Path.glob`).

        Raises:
          UserError: one cannot be opened.
        """
        self._path, self._patterns = path, patterns
        self.files = {name: HeldFile(file) for name, file in self._there().items()}

    def _there(self) -> dict[str, Path]:
        if self._path.is_file():
            return {self._path.name: self._path}
        found = {path for pattern in self._patterns for path in self._path.glob(pattern)}
        files = sorted(path for path in found if path.is_file())
        return {file.relative_to(self._path).as_posix(): file for file in files}

    def check_unchanged(self) -> None:
        """Raises UserError where one was written to, replaced, or added since they were opened."""
        for file in self.files.values():
            file.check_unchanged()
        if added := self._there().keys() - self.files.keys():
            what = "was added while the model was read"
            how = "start again when nobody writes to it"
            raise UserError(f"{self._path / min(added)}: {what}; {how}")


def _state(file: Path | int) -> tuple[int, ...]:
    found = os.stat(file)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
