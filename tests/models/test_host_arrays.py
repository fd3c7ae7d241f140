"""Arrays that weights are read into: transposed right, judged right, taken over without a copy."""

from __future__ import annotations

import jax
import ml_dtypes
import numpy as np
import pytest

from antiimit_jax.models.host_arrays import LARGEST, aligned_empty, is_sound, transpose_into


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_of_all_sixteen_bit_patterns_those_that_are_not_finite_or_too_large_are_found(dtype):
    every = np.arange(2**16, dtype=np.uint16).view(dtype)
    sound = np.abs(every.astype(np.float32)) < LARGEST
    assert is_sound(every[sound])
    for value in every[~sound]:
        assert not is_sound(np.array([1, value, -1], dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf, 3e38, -LARGEST])
@pytest.mark.parametrize("place", [0, 2**18 - 1, 2**18, 300_000 - 1])
def test_one_value_anywhere_is_found(dtype, value, place):
    array = np.full(300_000, -np.nextafter(np.array(LARGEST, dtype), 0), dtype)
    assert is_sound(array)
    array[place] = value
    assert not is_sound(array)


@pytest.mark.parametrize("shape", [(1, 1), (3, 700), (256, 256), (513, 255), (600, 2)])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_a_transpose_is_exact_in_every_corner(shape, dtype):
    array = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    to = np.zeros((shape[1], shape[0] + 4), dtype)
    transpose_into(to[:, 2:-2], array)
    np.testing.assert_array_equal(to[:, 2:-2], array.T)
    assert not to[:, :2].any() and not to[:, -2:].any()


def test_a_cpu_device_takes_an_aligned_array_over_as_it_is():
    for size in range(1, 200, 7):
        array = aligned_empty((2, size), np.dtype(ml_dtypes.bfloat16))
        on_device = jax.device_put(array, jax.devices("cpu")[0])
        assert on_device.unsafe_buffer_pointer() == array.ctypes.data
