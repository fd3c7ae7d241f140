"""Every broken checkpoint ends in one clear line within five seconds, and nothing in it runs."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import time

import jax
import pytest

from antiimit_jax.json_files import read_json
from antiimit_jax.language_model import load_language_model
from antiimit_jax.models.families import parse_config
from antiimit_jax.models.lora import LoraConfig, init_adapter
from antiimit_jax.models.peft import load_adapter, save_adapter
from tests.launch.processes import launch
from tests.launch.processes import refused as refused_process
from tests.models.broken_checkpoints import FOLDERS, KEY, NORM, booby_trap, shard
from tests.models.broken_files import ADAPTERS, GGUF_FILES
from tests.models.gguf_files import write_gguf
from tests.models.llama_peer import random_llama
from tests.models.refusals import refused
from tests.tiny_model import write_tiny_model

SECONDS = 5
PROCESSES = [
    "cut in the data",
    "NaN",
    "index to an absolute path",
    "auto_map",
    "tokenizer of foreign code",
    "config of brackets",
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A model folder, an adapter for it and a GGUF file, without fault."""
    folder = tmp_path_factory.mktemp("sound")
    write_tiny_model(folder / "model")
    cfg = parse_config(read_json(folder / "model" / "config.json"), "tiny")
    lora = LoraConfig(rank=2, targets=("q", "v"))
    adapter = init_adapter(jax.random.key(0), cfg, lora)
    save_adapter(folder / "adapter", jax.device_get(adapter), cfg, lora, "tiny")
    sizes = dict(hidden_size=32, intermediate_size=64, head_dim=8, vocab_size=48)
    write_gguf(random_llama(**sizes), folder / "model.gguf")
    return folder


@pytest.fixture
def part(sound, tmp_path):
    """Copies a part of it into `room`, with traps; afterwards none may have gone off."""
    room, marker = tmp_path / "room", tmp_path / "it_ran"
    shutil.copytree(sound, room)
    booby_trap(room / "model", marker)
    booby_trap(room / "adapter", marker)
    yield lambda name: room / name
    assert not marker.exists()


def _files(folder):
    return sorted((str(file), file.lstat().st_size) for file in folder.parent.rglob("*"))


def _refused_soon(path, action, *named):
    before, began = _files(path), time.process_time()
    with refused(*named):
        action()
    assert time.process_time() - began < SECONDS
    assert _files(path) == before, "a refusal leaves nothing behind"


def test_the_sound_ones_load(part):
    lm = load_language_model(str(part("model")))
    load_adapter(part("adapter"), lm.cfg)
    shard(part("model"))
    assert load_language_model(str(part("model"))).cfg == lm.cfg


def test_the_traps_would_go_off(tmp_path):
    marker = tmp_path / "it_ran"
    booby_trap(tmp_path, marker)
    subprocess.run([sys.executable, tmp_path / "modeling_trap.py"], check=True)
    assert marker.exists()
    marker.unlink()
    pickle.loads((tmp_path / "training_args.bin").read_bytes())
    assert marker.exists()


@pytest.mark.parametrize("case", FOLDERS)
def test_a_broken_folder_is_refused(case, part):
    damage, named = FOLDERS[case]
    damage(part("model"))
    model = part("model")
    _refused_soon(model, lambda: load_language_model(str(model)), str(model), *named)


@pytest.mark.parametrize("case", ADAPTERS)
def test_a_broken_adapter_is_refused(case, part):
    damage, named = ADAPTERS[case]
    cfg = parse_config(read_json(part("model") / "config.json"), "tiny")
    damage(part("adapter"))
    adapter = part("adapter")
    _refused_soon(adapter, lambda: load_adapter(adapter, cfg), str(adapter), *named)


@pytest.mark.parametrize("case", GGUF_FILES)
def test_a_broken_gguf_file_is_refused(case, part):
    damage, named = GGUF_FILES[case]
    damage(part("model.gguf"))
    file = part("model.gguf")
    _refused_soon(file, lambda: load_language_model(str(file)), str(file), *named)


def test_a_pickle_is_refused_unopened(part):
    file = part("model") / "training_args.bin"
    _refused_soon(file, lambda: load_language_model(str(file)), str(file), "pickled")


@pytest.mark.parametrize("case", PROCESSES)
def test_a_program_ends_with_one_line_and_an_exit_code(case, part):
    damage, _ = FOLDERS[case]
    damage(part("model"))
    before = _files(part("model"))
    result = launch("score", f"--model={part('model')}", "--prompt=x", "--words=a,b")
    refused_process(result, str(part("model")))
    assert result.returncode == 2 and result.stdout == ""
    assert _files(part("model")) == before


def test_a_link_within_the_hubs_cache_is_followed(part):
    """There the files of a snapshot are links to ../../blobs."""
    repo = part("model").parent / "models--a--b"
    snapshot, blobs = repo / "snapshots" / "0123", repo / "blobs"
    blobs.mkdir(parents=True)
    shutil.move(part("model"), snapshot)
    os.rename(snapshot / "model.safetensors", blobs / "cafe")
    (snapshot / "model.safetensors").symlink_to("../../blobs/cafe")
    assert load_language_model(str(snapshot)).cfg.hidden_size == 32
    os.rename(blobs / "cafe", repo / "cafe")
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to("../../cafe")
    with refused("model.safetensors", "link"):
        load_language_model(str(snapshot))


def test_faults_of_every_kind_stand_in_one_error(part):
    for case in ("transposed tensor", "missing tensor", "unexpected tensor"):
        FOLDERS[case][0](part("model"))
    with refused("3 faulty tensors", f"missing {NORM}", "unexpected spare", f"{KEY} has shape"):
        load_language_model(str(part("model")))
