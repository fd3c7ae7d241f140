"""JSON from files that anybody may have written: read within bounds, and of the shape asked for.

A shape says what a value must be:

    str, bool, int, float    a text, true or false, a whole number, a number
    object                   anything
    None                     null
    frozenset(("a", "b"))    one of these texts
    (str, None)              one of several
    [float]                  a list of numbers
    {"a": int, "b?": str}    an object with the key a, and maybe b, and no others
    {str: float}             an object of any keys, all with numbers; beside named keys: the others

Whatever the shape, a file holds at most `MOST_BYTES`, is nested at most `DEEPEST` deep, names no
key of an object twice, and has finite numbers and valid Unicode. Whole numbers beyond 64 bits
become floats.
"""

import dataclasses
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Generic, TypeVar

from antiimit_jax.errors import UserError, first_line, quoted

S = TypeVar("S")
T = TypeVar("T")
MOST_BYTES = 64 << 20
DEEPEST = 64
OBJECT = {str: object}
Shape = Any
_NAMES = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
    None: "null",
}
SURROGATE = re.compile("[\ud800-\udfff]")


def read_json(file: Path, shape: Shape = OBJECT, *, hint: str = "fetch it again") -> Any:
    """What a JSON file holds.

    Args:
      shape: what it must be; see the module.
      hint: what to do where it is something else.

    Raises:
      UserError: no such file, no JSON, beyond the bounds, or of another shape.
    """
    return parse_json(_read(file, hint), shape, source=str(file), hint=hint)


@dataclasses.dataclass(frozen=True, kw_only=True)
class UserFile(Generic[T]):
    """What a user's file holds, one entry a line, and the hash of the bytes that were read."""

    path: str
    entries: tuple[T, ...]
    sha256: str
    faults: tuple[str, ...] = ()  # of lines that were left out

    def holding(self, entries: Iterable[S], faults: Iterable[str] = ()) -> "UserFile[S]":
        """The same file, with what its entries were made to."""
        return dataclasses.replace(self, entries=tuple(entries), faults=tuple(faults))


def read_json_lines(
    file: Path, shape: Shape = OBJECT, *, hint: str, faults: list[str] | None = None
) -> UserFile[Any]:
    """What a JSONL file holds, a value for each of its lines.

    Args:
      faults: takes what is wrong with a line, whose value is then None; else that is raised.

    Raises:
      UserError: as `read_json`, with the number of the line; or no lines.
    """

    def parsed(line: bytes, source: str) -> Any:
        try:
            return parse_json(line, shape, source=source, hint=hint)
        except UserError as error:
            if faults is None:
                raise
            faults.append(str(error))
            return None

    return _read_lines(file, hint, parsed)


def read_text(file: Path, *, hint: str) -> str:
    """A text file as a whole.

    Raises:
      UserError: no such file, more than `MOST_BYTES`, or not UTF-8.
    """
    return "\n".join(read_lines(file, hint=hint).entries)


def read_lines(file: Path, *, hint: str) -> UserFile[str]:
    """The lines of a text file.

    Raises:
      UserError: as `read_json_lines`; a line is not UTF-8.
    """

    def decoded(line: bytes, source: str) -> str:
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            raise UserError(f"{source}: not UTF-8; {hint}") from error

    return _read_lines(file, hint, decoded)


def _read_lines(file: Path, hint: str, read: Callable[..., T]) -> UserFile[T]:
    """A file in one reading; `read` makes an entry of a line, whose name is `source`."""
    data = _read(file, hint)
    if len(data) > MOST_BYTES:
        raise UserError(f"{file}: more than {MOST_BYTES >> 20} MiB; cut it in parts")
    if not data.strip():
        raise UserError(f"{file}: is empty; {hint}")
    lines = [line.removesuffix(b"\r") for line in data.removesuffix(b"\n").split(b"\n")]
    return UserFile(
        path=str(file),
        entries=tuple(read(line, source=f"{file}: line {n}") for n, line in enumerate(lines, 1)),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def _read(file: Path, hint: str) -> bytes:
    """A file's bytes, at most one more than `MOST_BYTES`."""
    try:
        if not file.is_file():  # a pipe would be waited for
            raise UserError(f"{file}: no such file; {hint}")
        with file.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            return opened.read(min(size, MOST_BYTES) + 1)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); {hint}") from error


def parse_json(data: bytes, shape: Shape = OBJECT, *, source: str, hint: str = "") -> Any:
    """The same from bytes; `source` names them in messages."""
    try:
        if len(data) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES >> 20} MiB")
        value = json.loads(
            data.decode(), object_pairs_hook=_once, parse_int=_integer, parse_constant=_refuse
        )
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source}: not valid JSON ({first_line(error)}){_then(hint)}") from error
    return of_shape(value, shape, source=source, hint=hint)


def of_shape(value: T, shape: Shape, *, source: str, hint: str = "") -> T:
    """A value that came from JSON, known to be within the bounds and of a shape.

    Raises:
      UserError: it is not; `source` names what holds it.
    """
    if problem := _problem(value, shape, "", 0):
        raise UserError(f"{source}: {problem}{_then(hint)}")
    return value


def _then(hint: str) -> str:
    return hint and f"; {hint}"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in values if names.count(name) > 1)
        raise ValueError(f"{quoted(twice)} is there twice")
    return values


def _integer(digits: str) -> int | float:
    number = int(digits) if len(digits) <= 20 else float(digits)
    if math.isinf(number):
        raise ValueError("a number beyond all bounds")
    return number if abs(number) < 2**63 else float(number)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _problem(value: Any, shape: Shape, where: str, depth: int) -> str:
    """The first fault of a value and all within it; empty where there is none."""
    shapes = shape if isinstance(shape, tuple) else (shape,)
    shape = next((one for one in shapes if _is_kind(value, one)), _NAMES)
    at = f"{where.lstrip('.')}: " if where else ""
    if shape is _NAMES:
        wanted = " or ".join(_NAMES.get(_kind(one)) or _texts(one) for one in shapes)
        return f"{at}{wanted} expected, {quoted(value)} found"
    if isinstance(value, str):
        return f"{at}not valid Unicode" if SURROGATE.search(value) else ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"{at}a number beyond all bounds"
    if not isinstance(value, (list, dict)):
        return ""
    if depth == DEEPEST:
        return f"{where[:80]}: nested more than {DEEPEST} deep"
    if isinstance(value, list):
        inner = shape[0] if isinstance(shape, list) else object
        found = (_problem(v, inner, f"{where}[{i}]", depth + 1) for i, v in enumerate(value))
    else:
        shapes = shape if isinstance(shape, dict) else OBJECT
        if faults := _key_faults(value, shapes):
            return at + faults
        inner = lambda key: shapes.get(key, shapes.get(f"{key}?", shapes.get(str)))
        found = (_problem(v, inner(k), f"{where}.{k[:40]}", depth + 1) for k, v in value.items())
    return next(filter(None, found), "")


def _texts(known: frozenset[str]) -> str:
    return " or ".join(text or quoted(text) for text in sorted(known))


def _key_faults(value: dict[str, Any], shape: dict[Any, Shape]) -> str:
    named = {key.removesuffix("?"): key.endswith("?") for key in shape if key is not str}
    missing = [key for key, optional in named.items() if not optional and key not in value]
    unknown = [] if str in shape else [quoted(key) for key in value if key not in named]
    if missing:
        return f"lacks keys {', '.join(missing)}"
    if unknown:
        return f"has unknown keys {', '.join(unknown[:6])}"
    return "a key is not valid Unicode" if any(map(SURROGATE.search, value)) else ""


def _kind(shape: Shape) -> Any:
    return type(shape) if isinstance(shape, (list, dict)) else shape


def _is_kind(value: Any, shape: Shape) -> bool:
    if isinstance(shape, frozenset):
        return isinstance(value, str) and value in shape
    kind = _kind(shape)
    if kind is object or kind is None:
        return kind is object or value is None
    return type(value) is kind or (kind is float and type(value) is int)
