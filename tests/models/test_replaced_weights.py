"""Weights that are replaced while they are read are noticed; those of the opened files are read."""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct

import numpy as np
import pytest

from antiimit_jax import gguf_cache
from antiimit_jax.language_model import in_float32, load_language_model
from antiimit_jax.models.safetensors_files import SafetensorsCheckpoint
from antiimit_jax.models.weights import find_model, load_params
from antiimit_jax.text.tokenizer import load_tokenizer
from tests.models import mutated_files as mutated
from tests.models.refusals import refused

NAME = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture(params=["safetensors", "gguf"])
def model(request, tmp_path):
    """A small model whose weights are ones: its path and the file with the weights."""
    if request.param == "gguf":
        file = path = tmp_path / "m.gguf"
        file.write_bytes(mutated.encode_gguf(*mutated.sound_gguf())[0])
    else:
        path = tmp_path / "model"
        path.mkdir()
        (path / "config.json").write_text(json.dumps(mutated.CONFIG))
        file = path / "model.safetensors"
        file.write_bytes(mutated.encode_safetensors(mutated.sound_safetensors())[0])
    return find_model(str(path)), file


def _other(file):
    """The same header with twos for weights."""
    file.write_bytes(file.read_bytes().replace(struct.pack("<f", 1), struct.pack("<f", 2)))


def _renamed(file):
    new = file.with_name("new")
    shutil.copyfile(file, new)
    _other(new)
    os.replace(new, file)


def _same_content(file):
    shutil.copyfile(file, file.with_name("new"))
    os.replace(file.with_name("new"), file)


CHANGES = {
    "written over": _other,
    "renamed over": _renamed,
    "removed": lambda file: file.unlink(),
    "replaced by its copy": _same_content,
    "longer": lambda file: os.truncate(file, file.stat().st_size + 4),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_replaced_after_it_was_opened_is_refused(model, change):
    source, file = model
    checkpoint = source.open()
    load_params(source, checkpoint=checkpoint)
    CHANGES[change](file)
    with refused(str(file), "while it was read"):
        load_params(source, checkpoint=checkpoint)


def test_a_file_cut_while_it_is_read_is_refused(model):
    source, file = model
    checkpoint = source.open()
    os.truncate(file, file.stat().st_size - 3000)
    with refused(str(file), "ends within", "fetch it again"):
        load_params(source, checkpoint=checkpoint)


def test_a_file_that_cannot_be_opened_is_refused(model):
    source, file = model
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limit[1]))
    try:
        with refused("cannot be read", "Too many open files"):
            source.open()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)


def test_what_is_read_is_what_was_opened(model):
    source, file = model
    checkpoint = source.open()
    _renamed(file)
    assert (checkpoint.read(NAME) == 1).all()
    assert (source.open().read(NAME) == 2).all()


@pytest.mark.parametrize("kind", ["safetensors", "gguf", "cached gguf"])
@pytest.mark.parametrize("change", [_other, _renamed])
def test_a_model_is_read_again_from_the_files_that_it_was_read_from(
    kind, change, tmp_path, monkeypatch
):
    monkeypatch.setenv("ANTIIMIT_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(gguf_cache, "_WORTH_BYTES", 0 if kind == "cached gguf" else 1 << 60)
    file = path = tmp_path / "m.gguf"
    file.write_bytes(mutated.encode_gguf(*mutated.sound_gguf("gpt2"))[0])
    if kind == "safetensors":
        path = tmp_path / "model"
        load_tokenizer(file).hf.save_pretrained(path)
        (path / "config.json").write_text(json.dumps(mutated.CONFIG))
        file = path / "model.safetensors"
        file.write_bytes(mutated.encode_safetensors(mutated.sound_safetensors())[0])
    lm = load_language_model(str(path), dtype="bfloat16")
    again = in_float32(lm).params["embed"]["embedding"]
    assert again.dtype == np.float32
    assert (again.astype("bfloat16") == lm.params["embed"]["embedding"]).all()
    change(file)
    with refused(str(file), "while it was read"):
        in_float32(lm)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_the_files_beside_the_weights_belong_to_them(name, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(mutated.CONFIG))
    rows = mutated.sound_safetensors()
    (tmp_path / "a.safetensors").write_bytes(mutated.encode_safetensors(rows)[0])
    index = {"weight_map": dict.fromkeys(rows.keys() - {"__metadata__"}, "a.safetensors")}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    source = find_model(str(tmp_path))
    checkpoint = source.open()
    _same_content(tmp_path / name)
    with refused(str(tmp_path / name), "while it was read"):
        load_params(source, checkpoint=checkpoint)


def test_a_header_larger_than_any_known_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(mutated.CONFIG))
    data, header = mutated.encode_safetensors(mutated.sound_safetensors())
    head = data[8:header] + b" " * 2**24
    file = tmp_path / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(head)) + head + data[header:])
    with refused(str(file), "header", str(len(head))):
        find_model(str(tmp_path)).open()


@pytest.mark.large
def test_a_tensor_of_more_than_two_gibibytes_is_read_whole(tmp_path):
    """A call of the kernel reads less."""
    (tmp_path / "config.json").write_text(json.dumps(mutated.CONFIG))
    file, shape = tmp_path / "model.safetensors", (2**20 + 1, 2**10)
    row = {"dtype": "F16", "shape": shape, "data_offsets": [0, 2 * shape[0] * shape[1]]}
    head = json.dumps({"x": row}).encode()
    with file.open("wb") as opened:
        opened.write(struct.pack("<Q", len(head)) + head)
        opened.truncate(8 + len(head) + row["data_offsets"][1])
        opened.seek(-2, os.SEEK_END)
        opened.write(np.float16(3).tobytes())
    array = SafetensorsCheckpoint(tmp_path).read("x")
    assert array.shape == shape and array[-1, -1] == 3 and array[-1, -2] == 0
