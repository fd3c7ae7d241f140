"""Fields of configurations declare bound and meaning where they stand; one walker checks them all.

    steps: int = count(1, 400, "training steps")
    forms: str = one_of(FORMS, "strict", "what counts as saying a word")

The bound of a list holds for each of its members. Numbers must be finite whatever their bound. What
fields must be to each other is said by a method `problems(path) -> list[str]` of their class.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

from antiimit_jax.errors import near_misses

_MOST = 1_000_000  # no study counts so far: more is a slip of the finger


@dataclasses.dataclass(frozen=True)
class Bound:
    """What a value must be."""

    says: str  # as in "at least 1"
    holds: Callable[[Any], bool]
    filled: bool  # a list must not be empty
    known: tuple[str, ...] = ()  # names out of which it must be


def free(default: Any, doc: str) -> Any:
    """A field of any value of its type; `doc` says what it means, here and below."""
    return dataclasses.field(default=default, metadata={"doc": doc})


def _within(bound: Bound, default: Any, doc: str) -> Any:
    return dataclasses.field(default=default, metadata={"bound": bound, "doc": doc})


def bounded(default: Any, says: str, holds: Callable[[Any], bool], doc: str = "") -> Any:
    """A field with a default value, and what its values must be."""
    return _within(Bound(says, holds, False), default, doc)


def between(least: float, most: float, default: Any, doc: str = "", *, filled: bool = False) -> Any:
    """A field of numbers from `least` to `most`, both allowed."""
    bound = Bound(f"from {least} to {most}", lambda value: least <= value <= most, filled)
    return _within(bound, default, doc)


def count(least: int, default: int, doc: str = "") -> Any:
    """A field of whole numbers from `least` to `_MOST`."""
    return between(least, _MOST, default, doc)


def one_of(known: Iterable[str], default: Any, doc: str = "", *, filled: bool = False) -> Any:
    """A field of names out of those that are known."""
    known = tuple(known)
    bound = Bound(f"one of {', '.join(known)}", known.__contains__, filled, known)
    return _within(bound, default, doc)


def own_file(load: Callable[..., Any], doc: str = "", *, skip: str = "") -> Any:
    """A field that names a file of the user's, or is empty; `load` reads and checks it.

    Args:
      skip: the field beside it that says whether faulty lines are left out; `load` takes it too.
    """
    bound = Bound("the name of a file", lambda name: "\0" not in name, False)
    known = {"bound": bound, "doc": doc, "load": load, "skip": skip}
    return dataclasses.field(default="", metadata=known)


def shared(name: str) -> Any:
    """A field that holds the run's own field `name`; nobody sets it, and no file holds it."""
    return dataclasses.field(default=None, metadata={"shared": name})


def own_fields(config: Any) -> tuple[dataclasses.Field, ...]:
    """The fields of a configuration that are set in it, not shared."""
    return tuple(f for f in dataclasses.fields(config) if "shared" not in f.metadata)


def leaves(config: Any, path: str = "") -> dict[str, tuple[dataclasses.Field, Any]]:
    """Dotted name -> field and value, of all fields of a configuration and all within it."""
    found = {}
    for field in own_fields(config):
        value, name = getattr(config, field.name), f"{path}.{field.name}".lstrip(".")
        found |= leaves(value, name) if dataclasses.is_dataclass(value) else {name: (field, value)}
    return found


def share(config: Any, run: Any) -> Any:
    """The same configuration with its shared fields, and those within it, filled from the run's."""
    filled: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        if "shared" in field.metadata:
            filled[field.name] = getattr(run, field.metadata["shared"])
        elif dataclasses.is_dataclass(value := getattr(config, field.name)):
            filled[field.name] = share(value, run)
    return dataclasses.replace(config, **filled)


def own_files(config: Any) -> dict[str, tuple[str, Callable[[str], Any]]]:
    """Dotted name of each field that names a user's file -> that file or "", and what reads it."""
    found, every = {}, leaves(config)
    for name, (field, value) in every.items():
        if load := field.metadata.get("load"):
            if beside := field.metadata["skip"]:
                _, skips = every[name.removesuffix(field.name) + beside]
                load = lambda path, load=load, skips=skips: load(path, skips)
            found[name] = value, load
    return found


def problems(config: Any, path: str = "") -> list[str]:
    """What makes no sense in a configuration and all within it, one line each.

    Args:
      path: dotted name of `config`, for the messages; "" for the outermost.
    """
    found = []
    for field in own_fields(config):
        value, name = getattr(config, field.name), f"{path}.{field.name}".lstrip(".")
        if dataclasses.is_dataclass(value):
            found += problems(value, name)
            continue
        bound, is_list = field.metadata.get("bound"), isinstance(value, tuple)
        if bound and bound.filled and not value:
            found.append(f"{name} is empty: {bound.says}")
        for member in dict.fromkeys(value if is_list else (value,)):
            said = f"{name} holds {member!r}" if is_list else f"{name} = {member!r}"
            if isinstance(member, float) and not math.isfinite(member):
                found.append(f"{said}: not a finite number")
            elif bound and not bound.holds(member):
                found.append(f"{said}: {bound.says}{near_misses(str(member), bound.known)}")
    return found + (config.problems(path) if hasattr(config, "problems") else [])


def unweighed(config: Any, path: str, **weights_of: str) -> list[str]:
    """A line for each field of a list whose members another field does not weigh one by one.

    Args:
      weights_of: name of a field -> name of the field of its weights.
    """
    found = []
    for values, weights in weights_of.items():
        given, weight = getattr(config, values), getattr(config, weights)
        if not given or len(given) != len(weight) or sum(map(abs, weight)) == 0:
            found.append(f"{path}.{values} {given} and {path}.{weights} {weight} do not match")
    return found
