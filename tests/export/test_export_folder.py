"""An export's folder holds all of the model's files, and is replaced only as it was written."""

from __future__ import annotations

import pytest
from safetensors.numpy import load_file, save_file

from antiimit_jax.export.folder import export
from antiimit_jax.files import MARK
from antiimit_jax.models.weights import find_model
from tests.export.exports import exported, prepared
from tests.models.refusals import refused


def test_only_an_earlier_export_is_replaced_and_only_when_told(tmp_path):
    prepared(tmp_path)
    (tmp_path / "out").mkdir()
    exported(tmp_path)  # an empty folder is free
    with refused("not empty", "--overwrite"):
        exported(tmp_path)
    (tmp_path / "out" / "stray").write_text("")
    with refused("not of an export", "stray"):
        exported(tmp_path, overwrite=True)
    (tmp_path / "out" / "stray").unlink()
    exported(tmp_path, form="peft", overwrite=True)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"README.md", "adapter_config.json", "adapter_model.safetensors", MARK}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    (tmp_path / "mine" / "config.json").write_text("{}")
    with refused("not of an export", "config.json, thesis.txt"):
        exported(tmp_path, "mine", overwrite=True)
    (tmp_path / "file").write_text("")
    with refused("is a file"):
        exported(tmp_path, "file", overwrite=True)
    for out in ("model", "a", "."):
        with refused("which is read"):
            exported(tmp_path, out, overwrite=True)
    with refused("--adapter"):
        exported(tmp_path, "other", form="peft", adapter=None)


def fine_tuned(out):
    file = out / "model.safetensors"
    save_file({name: -array for name, array in load_file(file).items()}, file, {"format": "pt"})


def a_link(out):
    (out / "README.md").rename(out.parent / "README.md")
    (out / "README.md").symlink_to("../README.md")


def a_folder(out):
    (out / "README.md").unlink()
    (out / "README.md").mkdir()


def another_mark(out):
    for file in out.iterdir():
        file.unlink()
    (out / MARK).write_text('{"kind": "export", "files": {}}')


@pytest.mark.parametrize(
    "change, named",
    [
        (fine_tuned, "(model.safetensors)"),
        (a_link, "(README.md)"),
        (a_folder, "(README.md)"),
        (another_mark, f"({MARK})"),
    ],
)
def test_what_was_changed_in_an_export_is_not_ours_to_delete(change, named, tmp_path):
    prepared(tmp_path)
    exported(tmp_path)
    change(tmp_path / "out")
    before = {path: path.is_dir() or path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with refused(str(tmp_path / "out"), "or was changed since", named, "another folder"):
        exported(tmp_path, overwrite=True)
    assert {path: path.is_dir() or path.read_bytes() for path in before} == before


def test_all_chat_templates_leave_with_the_model(tmp_path):
    prepared(tmp_path)
    (tmp_path / "model" / "chat_template.jinja").write_text("one")
    folder = tmp_path / "model" / "additional_chat_templates"
    folder.mkdir()
    (folder / "default.jinja").write_text("two")
    (folder / "rag.jinja").write_text("three")
    for _ in range(2):  # an export that holds a folder is replaced like others
        exported(tmp_path, adapter=None, overwrite=True)
    copies = (tmp_path / "out").rglob("*.jinja")
    texts = {path.relative_to(tmp_path / "out").as_posix(): path.read_text() for path in copies}
    assert texts == {
        "chat_template.jinja": "one",
        "additional_chat_templates/default.jinja": "two",
        "additional_chat_templates/rag.jinja": "three",
    }


def test_a_folder_of_templates_that_lies_elsewhere_is_not_published(tmp_path):
    prepared(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "default.jinja").write_text("secret")
    (tmp_path / "model" / "additional_chat_templates").symlink_to("../elsewhere")
    with refused("additional_chat_templates/default.jinja", "link", "copy the file"):
        exported(tmp_path)


@pytest.mark.parametrize("name", ["LICENSE-x", "tokenizer.json", "generation_config.json"])
def test_what_a_link_leads_to_outside_the_folder_is_not_published(name, tmp_path):
    prepared(tmp_path)
    (tmp_path / "secret").write_text("{}")
    link = tmp_path / "model" / name
    link.unlink(missing_ok=True)
    link.symlink_to("../secret")
    with refused(str(link), "link", "copy the file"):
        exported(tmp_path)
    assert not (tmp_path / "out").exists()


def test_links_within_the_folder_and_to_the_hubs_blobs_are_followed(tmp_path):
    prepared(tmp_path)
    repo = tmp_path / "models--a--b"
    (repo / "blobs").mkdir(parents=True)
    (repo / "snapshots").mkdir()
    folder = (tmp_path / "model").rename(repo / "snapshots" / "0123")
    (folder / "LICENSE").write_text("Do as you like.")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("three")
    for i, file in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        file.rename(repo / "blobs" / str(i))
        file.symlink_to(repo / "blobs" / str(i))
    (folder / "LICENSE-too").symlink_to("LICENSE")
    export(find_model(str(folder)), None, tmp_path / "out", suites={})
    for name in ("LICENSE", "LICENSE-too"):
        copy = tmp_path / "out" / name
        assert copy.read_text() == "Do as you like." and not copy.is_symlink()
    assert (tmp_path / "out" / "additional_chat_templates" / "rag.jinja").read_text() == "three"
