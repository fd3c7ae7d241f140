"""A GGUF file opened from the cache is the model that was opened from the file, or is not used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest

from antiimit_jax import gguf_cache
from antiimit_jax.gguf_cache import GgufCache
from antiimit_jax.language_model import LanguageModel, load_language_model
from tests.launch.processes import ROOT, command, environment

EMBEDDED = "smollm2-135m-instruct"
TEXTS = ("Paris", " naïve 12 %", "日本語\n\n\tx", "<|im_end|>", "   three", "")
CHAT = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello <|im_end|>"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A cache that holds the embedded model."""
    cache = tmp_path_factory.mktemp("cache")
    os.environ["ANTIIMIT_JAX_CACHE"] = str(cache)
    try:
        load_language_model(EMBEDDED)
    finally:
        del os.environ["ANTIIMIT_JAX_CACHE"]
    (kept,) = (cache / "gguf").iterdir()
    return kept


@pytest.fixture
def cached(folder, monkeypatch) -> Path:
    monkeypatch.setenv("ANTIIMIT_JAX_CACHE", str(folder.parents[1]))
    return folder


def equal(one: LanguageModel, other: LanguageModel) -> None:
    assert one.cfg == other.cfg and one.prompt_format == other.prompt_format
    ours, theirs = (jax.tree_util.tree_leaves_with_path(lm.params) for lm in (one, other))
    assert [path for path, _ in ours] == [path for path, _ in theirs]
    for (path, a), (_, b) in zip(ours, theirs):
        assert a.dtype == b.dtype and a.shape == b.shape, path
        assert np.array_equal(a, b), path
    a, b = one.tokenizer, other.tokenizer
    assert (a.size, a.bos_ids, a.eos_ids, a.pieces) == (b.size, b.bos_ids, b.eos_ids, b.pieces)
    for text in TEXTS:
        assert a.encode_text(text) == b.encode_text(text)
        assert a.encode_plain(text) == b.encode_plain(text)
        assert a.encode_continued(text) == b.encode_continued(text)
    assert a.render_chat(list(CHAT), "The") == b.render_chat(list(CHAT), "The")
    assert np.array_equal(one.terminators.mask("standard"), other.terminators.mask("standard"))


def test_the_second_opening_is_the_first_without_the_file_being_parsed(
    cached, monkeypatch, tmp_path
):
    def parsed(*_):
        raise AssertionError("parsed again")

    with monkeypatch.context() as patch:
        patch.setattr("antiimit_jax.models.gguf.GgufCheckpoint.__init__", parsed)
        again = load_language_model(EMBEDDED)
    leaf = again.params["embed"]["embedding"]
    assert not leaf.flags.writeable and leaf.ctypes.data % 64 == 0
    monkeypatch.setenv("ANTIIMIT_JAX_CACHE", str(tmp_path))
    monkeypatch.setattr(gguf_cache, "_WORTH_BYTES", 1 << 60)
    equal(again, load_language_model(EMBEDDED))
    assert not list(tmp_path.iterdir())  # what is not worth it leaves nothing


def test_each_dtype_has_its_own_place_and_exact_values(cached, monkeypatch, tmp_path):
    monkeypatch.setenv("ANTIIMIT_JAX_CACHE", str(tmp_path))
    first = load_language_model(EMBEDDED, dtype="bfloat16")
    second = load_language_model(EMBEDDED, dtype="bfloat16")
    equal(first, second)
    assert second.params["embed"]["embedding"].dtype == "bfloat16"
    (kept,) = (tmp_path / "gguf").iterdir()
    assert kept.name != cached.name and kept.name.endswith("-bfloat16")


@pytest.mark.parametrize("damage", ["bit", "cut", "lost", "hashes", "extra key"])
def test_a_damaged_folder_is_deleted_and_not_used(folder, monkeypatch, tmp_path, caplog, damage):
    copy = tmp_path / "gguf" / folder.name
    shutil.copytree(folder, copy)
    monkeypatch.setenv("ANTIIMIT_JAX_CACHE", str(tmp_path))
    file = copy / "layers.mlp.down.kernel.safetensors"
    if damage == "bit":
        with file.open("r+b") as opened:
            opened.seek(-1, 2)
            last = opened.read(1)
            opened.seek(-1, 2)
            opened.write(bytes([last[0] ^ 1]))
    elif damage == "cut":
        os.truncate(file, 1000)
    elif damage == "lost":
        file.unlink()
    else:
        text = "{}" if damage == "hashes" else '{"no.safetensors": "0"}'
        (copy / "sha256.json").write_text(text, encoding="utf-8")
    place = GgufCache(load_file(), "float32")
    assert place.read() is None
    assert not copy.exists()
    assert "damaged" in caplog.text and "\n" not in caplog.records[-1].getMessage()


def load_file() -> Path:
    from antiimit_jax.models.weights import find_model

    return find_model(EMBEDDED).path


def test_other_content_or_other_code_is_another_place(cached, monkeypatch, tmp_path):
    file = tmp_path / "copy.gguf"
    shutil.copyfile(load_file(), file)
    place = lambda: GgufCache(file, "float32")._folder
    assert place() == cached
    with file.open("r+b") as opened:
        opened.seek(-1, 2)
        opened.write(b"\x55")
    assert place() != cached
    shutil.copyfile(load_file(), file)
    monkeypatch.setattr(gguf_cache, "_reader_version", lambda: "another reading")
    assert place() != cached


@pytest.mark.parametrize("why", ["full", "small disk", "not a folder"])
def test_a_cache_that_cannot_be_written_costs_one_line(folder, monkeypatch, tmp_path, caplog, why):
    cache = tmp_path / "cache"
    monkeypatch.setenv("ANTIIMIT_JAX_CACHE", str(cache))
    if why == "not a folder":
        cache.write_text("")
    elif why == "small disk":
        monkeypatch.setattr(gguf_cache, "_SPARE_BYTES", 1 << 60)
    else:

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(gguf_cache, "write_aligned", full)
    place = GgufCache(load_file(), "float32")
    assert place.read() is None
    monkeypatch.setenv("ANTIIMIT_JAX_CACHE", str(folder.parents[1]))
    cfg, params, tokenizer = GgufCache(load_file(), "float32").read()
    place.keep(json.loads((folder / "config.json").read_text()), params, tokenizer)
    assert len(caplog.records) == 1
    assert not cache.is_dir() or not list((cache / "gguf").iterdir())


def test_two_programs_at_once_both_answer_and_leave_one_folder(tmp_path):
    asked = command("score", "--prompt=The capital of France is", "--words=Paris,London")
    env = environment() | {"ANTIIMIT_JAX_CACHE": str(tmp_path)}
    both = [
        subprocess.Popen(asked, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=300) for process in both]
    for process, (_, err) in zip(both, answers):
        assert process.returncode == 0, err.decode()
    one, other = (json.loads(out) for out, _ in answers)
    assert one == other and one["words"]["Paris"] > one["words"]["London"]
    (kept,) = (tmp_path / "gguf").iterdir()
    assert (kept / "sha256.json").is_file()
