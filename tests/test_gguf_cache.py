"""A GGUF file opened from the cache is the model that was opened from the file, or is not used."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import struct
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest

from antiimit_jax import gguf_cache
from antiimit_jax.gguf_cache import GgufCache
from antiimit_jax.language_model import LanguageModel, _open, load_language_model
from antiimit_jax.models.safetensors_files import write_aligned
from antiimit_jax.models.weights import find_model
from antiimit_jax.text.tokenizer import load_tokenizer
from tests.launch.processes import ROOT, command, environment
from tests.models import mutated_files
from tests.models.refusals import refused

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


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    """A GGUF file of some kilobytes that is worth keeping, and an empty cache."""
    file = tmp_path / "small.gguf"
    file.write_bytes(mutated_files.encode_gguf(*mutated_files.sound_gguf("gpt2"))[0])
    monkeypatch.setattr(gguf_cache, "_WORTH_BYTES", 0)
    monkeypatch.setenv("ANTIIMIT_JAX_CACHE", str(tmp_path / "cache"))
    return file


def opened(file: Path) -> GgufCache:
    """The file's place in the cache, where `load_language_model` finds it or puts it."""
    cache, source = GgufCache(file, "float32"), find_model(str(file))
    if cache.read() is None:
        _open(source, "float32", cache)
    return cache


def kept(file: Path) -> list[str]:
    return sorted(path.name for path in (file.parent / "cache" / "gguf").iterdir())


def mode(folder: Path) -> int:
    return folder.stat().st_mode & 0o777


def test_only_the_user_enters_the_cache(small, caplog):
    opened(small)
    folder = small.parent / "cache" / "gguf"
    (made,) = folder.iterdir()
    assert mode(folder) == mode(made) == 0o700
    folder.chmod(0o755)  # as earlier versions made it: others could look, not write
    assert GgufCache(small, "float32").read() is not None
    assert mode(folder) == 0o700 and not caplog.records


@pytest.mark.parametrize("whose", ["all may write", "a group may write", "another's"])
def test_a_cache_that_others_can_write_to_is_not_used(small, whose, caplog):
    opened(small)
    folder = small.parent / "cache" / "gguf"
    (made,) = folder.iterdir()
    if whose == "another's":
        if os.getuid() != 0:
            pytest.skip("only root can give a folder away")
        os.chown(folder, 12345, -1)
    else:
        folder.chmod(0o777 if whose == "all may write" else 0o770)
    (made / "sha256.json").write_text("{}")  # would be deleted if it was read
    cache = GgufCache(small, "float32")
    assert cache.read() is None and list(folder.iterdir()) == [made]
    (record,) = caplog.records
    assert f"{folder}: not used" in record.getMessage() and "delete it" in record.getMessage()
    _open(find_model(str(small)), "float32", cache)
    assert (made / "sha256.json").read_text() == "{}" and len(caplog.records) == 2


def test_what_killed_builds_left_is_removed_by_the_next(small):
    left = small.parent / "cache" / "gguf" / ".x.killed.antiimit_jax-tmp"
    left.mkdir(parents=True)
    (left / "half.safetensors").write_bytes(b"x" * 1000)
    left.parent.chmod(0o700)
    cache = opened(small)
    assert kept(small) == [cache._folder.name]


def test_a_build_that_goes_on_is_left_alone(small):
    folder = small.parent / "cache" / "gguf"
    (folder / ".x.written.antiimit_jax-tmp").mkdir(parents=True)
    folder.chmod(0o700)
    lock = os.open(folder, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    opened(small)
    assert kept(small) == [".x.written.antiimit_jax-tmp"]
    os.close(lock)
    cache = opened(small)
    assert kept(small) == [cache._folder.name]


def test_a_file_replaced_after_it_was_hashed_is_not_kept_under_that_hash(small):
    cache = GgufCache(small, "float32")
    assert cache.read() is None
    other = small.read_bytes().replace(struct.pack("<f", 1), struct.pack("<f", 2))
    small.write_bytes(other)
    with refused(str(small), "while it was read"):
        _open(find_model(str(small)), "float32", cache)
    assert not (small.parent / "cache").exists()


def test_a_file_of_the_cache_replaced_after_it_was_hashed_is_not_used(small, monkeypatch, caplog):
    folder = opened(small)._folder
    params = GgufCache(small, "float32").read()[1]

    def replaced_meanwhile(path):
        file = folder / "embed.embedding.safetensors"
        array = np.full(params["embed"]["embedding"].shape, 5, np.float32)
        file.unlink()
        write_aligned(file, "embed.embedding", array)
        return load_tokenizer(path)

    monkeypatch.setattr(gguf_cache, "load_tokenizer", replaced_meanwhile)
    assert GgufCache(small, "float32").read() is None
    assert "damaged" in caplog.text and not folder.exists()


def test_two_programs_at_once_both_answer_and_leave_one_folder(tmp_path):
    prompt = ("--prompt=The capital of France is", "--raw")
    asked = command("score", *prompt, "--words=Paris,London", "--json")
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
