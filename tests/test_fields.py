"""Every field declares its bound, and the walker names the dotted path of all that break theirs."""

from __future__ import annotations

import dataclasses
import math

import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.fields import between, bounded, count, leaves, one_of, problems
from antiimit_jax.run_config import RunConfig, from_dict
from antiimit_jax.trees import nested

FREE = {"model", "revision", "against"}


@dataclasses.dataclass(frozen=True)
class Inner:
    few: tuple[int, ...] = between(1, 3, (1, 2), filled=True)
    names: tuple[str, ...] = one_of(("a", "b"), ())
    share: float = bounded(0.5, "below 1", lambda share: share < 1)
    free: float = 0.0

    def problems(self, path: str) -> list[str]:
        return [f"{path}.few is longer than 3"] if len(self.few) > 3 else []


@dataclasses.dataclass(frozen=True)
class Outer:
    steps: int = count(1, 4)
    rate: float = between(0.01, 1.0, 0.1)
    inner: Inner = Inner()


@pytest.mark.parametrize(
    "config, found",
    [
        (Outer(), []),
        (Outer(steps=0), ["steps = 0: from 1 to 1000000"]),
        (Outer(rate=0.0), ["rate = 0.0: from 0.01 to 1.0"]),
        (Outer(rate=math.nan), ["rate = nan: not a finite number"]),
        (Outer(inner=Inner(few=(1, 4))), ["inner.few holds 4: from 1 to 3"]),
        (Outer(inner=Inner(few=())), ["inner.few is empty: from 1 to 3"]),
        (Outer(inner=Inner(names=("a", "c"))), ["inner.names holds 'c': one of a, b"]),
        (Outer(inner=Inner(few=(1, 1, 2, 2))), ["inner.few is longer than 3"]),
        (Outer(inner=Inner(free=-math.inf)), ["inner.free = -inf: not a finite number"]),
        (
            Outer(steps=-1, inner=Inner(share=1.0)),
            ["steps = -1: from 1 to 1000000", "inner.share = 1.0: below 1"],
        ),
    ],
)
def test_the_walker_names_what_breaks_its_bound(config, found):
    assert problems(config) == found
    assert problems(config, "run") == ["run." + line for line in found]


def test_every_field_of_a_run_declares_its_bound_and_its_meaning():
    found = {name: field for name, (field, _) in leaves(RunConfig()).items()}
    bounded = {name for name, field in found.items() if "bound" in field.metadata}
    assert {name for name in found.keys() - bounded if found[name].type is not bool} == FREE
    assert {name for name, field in found.items() if not field.metadata.get("doc")} == set()


@pytest.mark.parametrize(
    "group, field, wrong",
    [
        ("lora", "rank", 0),
        ("lora", "alpha", -1.0),
        ("lora", "alpha", math.inf),
        ("lora", "targets", ["qkv"]),
        ("lora", "alpha", 1e308),
        ("lora", "alpha", 10**400),
        ("lora", "rank", 10**6),
        ("train", "adam_b2", 1.0),
        ("train", "adam_b2", 5.0),
        ("train", "rows", 10**9),
        ("train", "steps", 2**31),
        ("train", "anchor_tokens", 10**9),
        ("train", "anchor_weight", math.inf),
        ("train", "clip_norm", math.nan),
        ("train", "learning_rate", 1e30),
        ("train.mixture", "k_weights", [1e308]),
        ("train", "learning_rate", 0.0),
        ("train", "learning_rate", math.nan),
        ("train", "final_lr_fraction", 1.5),
        ("train", "row_tokens", 8),
        ("train", "objective", "mse"),
        ("control", "n_items", 3),
        ("control", "n_items", 10**18),
        ("control", "limit", 2**31),
        ("control", "splits", []),
        ("drift", "rulers", ["int4"]),
    ],
)
def test_a_wrong_value_is_named_by_its_path(group, field, wrong):
    with pytest.raises(UserError, match=rf"{group}\.{field}"):
        from_dict(nested({f"{group}.{field}": wrong}))


def test_names_in_one_text_are_a_list_of_them_as_flags_give_it():
    assert from_dict({"ladder": {"rungs": ("L7, L9", "L12")}}).ladder.rungs == ("L7", "L9", "L12")
    with pytest.raises(UserError, match="ladder.rungs holds 'L99': one of"):
        from_dict({"ladder": {"rungs": ("L7,L99",)}})


def test_no_whole_number_is_without_end():
    """A slip of the finger is refused at once, not after hours of work or where memory ends."""
    for name, (field, _) in leaves(RunConfig()).items():
        if field.type in (int, tuple[int, ...]):
            assert not field.metadata["bound"].holds(10**10), name
    with pytest.raises(UserError, match="n_boot = 1000000000000000000000000000000: from 0 to"):
        from_dict({"n_boot": 10**30})


def test_no_number_of_a_training_is_without_end():
    """None of them may be what no run could ever finish, hold or multiply in float32."""
    for group in ("train", "lora"):
        for name, (field, value) in leaves(getattr(RunConfig(), group), group).items():
            default = value[0] if isinstance(value, tuple) else value
            if isinstance(default, (int, float)) and not isinstance(default, bool):
                assert not field.metadata["bound"].holds(type(default)(1e38)), name
