"""What a disk may hold after a crash, from a recording of all changes below a folder (`disk.c`).

A disk keeps what was synced. Of a file that is its contents when it was last synced. Names are kept
either as far as their folder was synced, or all of them, as on disks that keep them in order.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """One call: "create", "write", "cut", "sync", "mkdir", "rename", "exchange" or "remove"."""

    kind: str
    inode: int  # of an open file
    offset: int  # of a write; of a cut the size that is left
    path: Path
    other: Path  # the new name
    data: bytes


@dataclasses.dataclass
class File:
    """Bytes as the program sees them, and as they are on the disk."""

    inode: int
    now: bytearray = dataclasses.field(default_factory=bytearray)
    synced: bytes = b""

    def sync(self) -> None:
        self.synced = bytes(self.now)


@dataclasses.dataclass
class Folder:
    """Names as the program sees them, and as they are on the disk."""

    now: dict[str, File | Folder] = dataclasses.field(default_factory=dict)
    synced: dict[str, File | Folder] = dataclasses.field(default_factory=dict)

    def sync(self) -> None:
        self.synced = dict(self.now)


def read_changes(log: Path) -> list[Change]:
    """What `disk_watch` recorded."""
    changes = []
    with log.open("rb") as opened:
        while line := opened.readline():
            kind, *numbers = line.split()
            inode, offset, size, path, other = map(int, numbers)
            names = [Path(os.fsdecode(opened.read(length))) for length in (path, other)]
            change = Change(
                kind=kind.decode(),
                inode=inode,
                offset=offset,
                path=names[0],
                other=names[1],
                data=opened.read(size),
            )
            changes.append(change)
    return changes


class Disk:
    """A folder and all below it, changed as it was recorded."""

    def __init__(self, root: Path, called: Path | None = None) -> None:
        """Args: root: what lies there now is on the disk. called: the folder in the recording."""
        self._root, self._top = called or root, _held(root)

    def apply(self, change: Change) -> None:
        """One more change; those of a file that has no name any more are gone with it."""
        holder, name = self._named(change.path)
        there = holder.now.get(name) or _renamed(holder, name, change.inode)
        if change.kind in ("create", "mkdir"):
            holder.now[name] = File(change.inode) if change.kind == "create" else Folder()
        elif change.kind == "remove":
            del holder.now[name]
        elif change.kind in ("rename", "exchange"):
            to, new_name = self._named(change.other)
            replaced = to.now.get(new_name)
            del holder.now[name]
            to.now[new_name] = there
            if change.kind == "exchange":
                holder.now[name] = replaced
        elif there is not None and change.kind == "sync":
            there.sync()
        elif there is not None:
            end = change.offset + len(change.data)
            there.now.extend(bytes(max(0, end - len(there.now))))
            if change.kind == "write":
                there.now[change.offset : end] = change.data
            else:
                del there.now[change.offset :]

    def files(self, names: str, contents: str) -> dict[str, bytes | None]:
        """Path -> contents, None of a folder; each "now" or "synced"."""
        return dict(_files(self._top, names, contents, ""))

    def _named(self, path: Path) -> tuple[Folder, str]:
        """The folder that holds a name, and the name."""
        parts, at = path.relative_to(self._root).parts, self._top
        holder = Folder({".": self._top})
        for part in parts:
            holder, at = at, at.now.get(part)
        return (holder, parts[-1]) if parts else (holder, ".")


def _renamed(holder: Folder, name: str, inode: int) -> File | None:
    """A file of the folder that bears a new name since it was last seen."""
    for old, there in list(holder.now.items()):
        if isinstance(there, File) and there.inode == inode:
            holder.now[name] = holder.now.pop(old)
            return there
    return None


def _held(place: Path) -> File | Folder:
    if place.is_file():
        data = place.read_bytes()
        return File(place.stat().st_ino, bytearray(data), data)
    names = {inside.name: _held(inside) for inside in place.iterdir()}
    return Folder(names, dict(names))


def _files(
    folder: Folder, names: str, contents: str, below: str
) -> Iterator[tuple[str, bytes | None]]:
    for name, there in sorted(getattr(folder, names).items()):
        if isinstance(there, File):
            yield below + name, bytes(getattr(there, contents))
        else:
            yield below + name, None
            yield from _files(there, names, contents, f"{below}{name}/")


def write_files(files: dict[str, bytes | None], folder: Path) -> None:
    """Makes a folder that holds them."""
    folder.mkdir()
    for name, data in files.items():
        if data is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(data)


def digest(files: dict[str, bytes | None]) -> str:
    """Equal where all names and contents are."""
    parts = ((name, data and hashlib.sha256(data).hexdigest()) for name, data in files.items())
    return hashlib.sha256(repr(list(parts)).encode()).hexdigest()
