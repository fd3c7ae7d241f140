"""A run's identity holds the hash of every file that its model is read from."""

from __future__ import annotations

import json

import pytest

from antiimit_jax.models.weights import Source, find_model
from antiimit_jax.reporting import identity
from antiimit_jax.text.tokenizer import load_tokenizer
from tests.models import mutated_files


@pytest.fixture
def source(tmp_path, monkeypatch) -> Source:
    """A model whose files are all large enough to have their hashes kept, and an empty cache."""
    monkeypatch.setenv("ANTIIMIT_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(identity, "_LARGE", 0)
    monkeypatch.setattr(identity, "_SETTLED", -1)
    gguf, folder = tmp_path / "m.gguf", tmp_path / "model"
    gguf.write_bytes(mutated_files.encode_gguf(*mutated_files.sound_gguf("gpt2"))[0])
    load_tokenizer(gguf).hf.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(mutated_files.CONFIG))
    (folder / "chat_template.jinja").write_text("one")
    return find_model(str(folder))


def now(source: Source) -> dict[str, str]:
    return identity.identity(find_model(source.name), "none", lambda text: None)["model"]


def test_the_template_that_transformers_prefers_is_among_them(source):
    before = now(source)
    folder = source.path / "additional_chat_templates"
    folder.mkdir()
    (folder / "default.jinja").write_text("two")
    assert load_tokenizer(source.path).hf.get_chat_template() == "two"
    with_more = now(source)
    assert with_more.keys() - before.keys() == {"additional_chat_templates/default.jinja"}
    (folder / "default.jinja").write_text("three")
    assert identity.differing(with_more, now(source)) == ["additional_chat_templates/default.jinja"]


def test_a_hash_is_kept_where_nobody_else_can_write(source, tmp_path, caplog):
    before, (file,) = now(source), (tmp_path / "cache").rglob("*.json")
    assert file.parent.stat().st_mode & 0o777 == 0o700
    kept = json.loads(file.read_text())
    assert sorted(kept.values()) == sorted(before.values())
    file.write_text(json.dumps(dict.fromkeys(kept, "of another")))
    assert set(now(source).values()) == {"of another"}  # they are not read again
    file.parent.chmod(0o777)  # as under a umask of 0: anybody may have written it
    forged = file.read_text()
    assert now(source) == before and file.read_text() == forged
    (record,) = caplog.records
    assert "other users can write" in record.getMessage()
