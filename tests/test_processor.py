"""Which dtype the processor multiplies faster: measured once, then read from the user's cache."""

import json

import pytest

from antiimit_jax import processor


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ANTIIMIT_JAX_CACHE", str(tmp_path))
    return tmp_path / "processors.json"


def test_measured_once(cache, monkeypatch):
    first = processor.multiplies_bfloat16()
    ((key, rates),) = json.loads(cache.read_text()).items()
    assert processor.processor_name() in key
    assert first == (rates["bfloat16"] > 1.2 * rates["float32"])
    monkeypatch.setattr(processor, "MatmulRate", None)
    assert processor.multiplies_bfloat16() == first


def test_what_was_measured_decides(cache):
    processor.multiplies_bfloat16()
    (key,) = json.loads(cache.read_text())
    for bfloat16, faster in ((900, True), (479, False)):
        cache.write_text(json.dumps({key: {"float32": 400, "bfloat16": bfloat16}}))
        assert processor.multiplies_bfloat16() == faster
