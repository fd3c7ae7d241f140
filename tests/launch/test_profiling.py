"""Traces hold the operations of the beats they were taken of, and end with their part."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from antiimit_jax.evaluation.progress import silent
from launch import profiling


@pytest.fixture
def work():
    """Nearly all of its time is a product of matrices."""
    product = jax.jit(lambda x: jnp.abs(x @ x))
    x = jnp.ones((700, 700))
    return lambda: jax.block_until_ready(product(x))


def files(folder):
    return sorted(folder.glob("plugins/profile/*/*.xplane.pb"))


def test_a_part_is_traced_behind_its_first_beats_and_its_products_take_the_time(tmp_path, work):
    told, seen = [], []
    progress = profiling.Profiled(
        lambda what, total: lambda count, how: seen.append(count), tmp_path, told.append
    )
    beat = progress("training", 9)
    for number in range(9):
        work()
        beat(1)
        assert bool(files(tmp_path)) == (number + 1 >= profiling._LAST)
    progress.stop()
    assert seen == [1] * 9
    (trace,) = files(tmp_path)
    (line,) = told
    shares = profiling.time_by_operation(trace)
    assert sum(shares.values()) == pytest.approx(1)
    first = next(iter(shares))
    assert shares[first] > 0.5 and ("dot" in first or "ynn" in first or "fusion" in first)
    assert line.startswith(f"training: {first} ") and str(trace.parent) in line


def test_a_trace_ends_where_the_next_part_begins(tmp_path, work):
    progress = profiling.Profiled(silent, tmp_path, lambda line: None)
    beat = progress("short", 4)
    for _ in range(4):
        work()
        beat(1)
    assert not files(tmp_path)
    progress("next", 1)(1)
    assert len(files(tmp_path)) == 1
    progress.stop()
    assert len(files(tmp_path)) == 1
    with jax.profiler.trace(tmp_path / "another"):  # nothing is being traced any more
        work()


@pytest.mark.parametrize(
    "operation, kind",
    [
        ("dot.3", "dot"),
        ("loop_add_fusion.12.clone", "loop_add_fusion"),
        ("while", "while"),
        ("copy.1.remat2", "copy"),
    ],
)
def test_operations_are_counted_by_kind(operation, kind):
    assert profiling.kind(operation) == kind
