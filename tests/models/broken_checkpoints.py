"""Broken model folders: name -> how to break a sound one, and what the refusal must name."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  registers bfloat16
import numpy as np
from safetensors.numpy import load_file, save_file

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
EMBED, NORM = "model.embed_tokens.weight", "model.norm.weight"
KEY = "model.layers.1.self_attn.k_proj.weight"
Case = tuple[Callable[[Path], Any], tuple[str, ...]]


def booby_trap(folder: Path, marker: Path) -> None:
    """Code and pickles that leave `marker` if anything runs or opens them."""
    code = f"import os; os.close(os.open({str(marker)!r}, os.O_CREAT))\n"
    for name in ("modeling_trap", "configuration_trap", "tokenization_trap", "__init__"):
        (folder / f"{name}.py").write_text(code)
    pickle = f"cos\nsystem\n(S'touch {marker}'\ntR.".encode()
    for name in ("training_args.bin", "adapter_model.bin", "optimizer.pt"):
        (folder / name).write_bytes(pickle)


def shard(folder: Path) -> None:
    """The single file as two shards and an index."""
    tensors = load_file(folder / FILE)
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / FILE).unlink()
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def _cut(left: int) -> Callable[[Path], None]:
    def cut(folder: Path) -> None:
        file = folder / FILE
        os.truncate(file, left if left >= 0 else file.stat().st_size + left)

    return cut


def _parts(folder: Path) -> tuple[dict[str, Any], bytes]:
    raw = (folder / FILE).read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + size]), raw[8 + size :]


def _header(change: Callable[[dict[str, Any]], Any], size: int | None = None):
    """Rewrites the header; `change` edits it or returns bytes that take its place."""

    def rewrite(folder: Path) -> None:
        header, data = _parts(folder)
        text = change(header)
        text = text if isinstance(text, bytes) else json.dumps(header).encode()
        length = struct.pack("<Q", len(text) if size is None else size)
        (folder / FILE).write_bytes(length + text + data)

    return rewrite


def _row(**fields: Any) -> Callable[[Path], None]:
    return _header(lambda header: header[NORM].update(fields))


def _tensors(**changes: Any) -> Callable[[Path], None]:
    """Replaces tensors of the file; None takes one out, a function changes it."""

    def rewrite(folder: Path) -> None:
        tensors = load_file(folder / FILE)
        for name, change in changes.items():
            tensors[name] = change(tensors[name].copy()) if callable(change) else change
        save_file({n: array for n, array in tensors.items() if array is not None}, folder / FILE)

    return rewrite


def _spoiled(value: float, dtype: str = "float32") -> Callable[[np.ndarray], np.ndarray]:
    def spoil(array: np.ndarray) -> np.ndarray:
        array = array.astype(dtype)
        array[-1, -1] = value
        return array

    return spoil


def _config(**changes: Any) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        file = folder / "config.json"
        config = json.loads(file.read_text()) | changes
        kept = {key: value for key, value in config.items() if value is not None}
        file.write_text(json.dumps(kept))

    return rewrite


def _text(name: str, text: str) -> Callable[[Path], Any]:
    def write(folder: Path) -> None:
        if name == INDEX:
            shard(folder)
        (folder / name).write_text(text)

    return write


def _index(change: Callable[[dict[str, Any], Path], Any]) -> Callable[[Path], None]:
    """Shards the folder, then edits the index's weight_map."""

    def rewrite(folder: Path) -> None:
        shard(folder)
        index = json.loads((folder / INDEX).read_text())
        change(index["weight_map"], folder)
        (folder / INDEX).write_text(json.dumps(index))

    return rewrite


def _points(target: str) -> Callable[[Path], None]:
    return _index(lambda where, _: where.update({NORM: target}))


def _link(where: dict[str, str], folder: Path) -> None:
    outside = folder.parent / "outside.safetensors"
    shutil.move(folder / where[NORM], outside)
    (folder / where[NORM]).symlink_to(outside)


def _ring(where: dict[str, str], folder: Path) -> None:
    (folder / where[NORM]).unlink()
    (folder / where[NORM]).symlink_to(where[NORM])


def _twice_in_shards(where: dict[str, str], folder: Path) -> None:
    (other,) = set(where.values()) - {where[NORM]}
    save_file(load_file(folder / other) | {NORM: np.ones(32, np.float32)}, folder / other)


def _twice_in_index(folder: Path) -> None:
    shard(folder)
    text = (folder / INDEX).read_text()
    twice = f'"weight_map": {{"{NORM}": "model-00001-of-00002.safetensors", '
    (folder / INDEX).write_text(text.replace('"weight_map": {', twice))


def _duplicate(header: dict[str, Any]) -> bytes:
    text = json.dumps(header)
    return (text[:-1] + f', "{NORM}": {json.dumps(header[NORM])}' + "}").encode()


def _overlap(header: dict[str, Any]) -> None:
    header[NORM]["data_offsets"] = header[KEY]["data_offsets"]
    header[NORM]["shape"] = header[KEY]["shape"]


def _only_pickles(folder: Path) -> None:
    (folder / FILE).rename(folder / "pytorch_model.bin")


def _fewer_rows(folder: Path) -> None:
    _tensors(**{EMBED: lambda table: table[:100].copy()})(folder)
    _config(vocab_size=100)(folder)


def _foreign_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    config = {
        "auto_map": {"AutoTokenizer": ["tokenization_trap.Trap", None]},
        "tokenizer_class": "Trap",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


_TRAP = {"AutoConfig": "configuration_trap.Trap", "AutoModelForCausalLM": "modeling_trap.Trap"}
_WIDE = {"architectures": None, "head_dim": 8}

FOLDERS: dict[str, Case] = {
    "empty file": (_cut(0), (FILE,)),
    "cut in the length": (_cut(5), (FILE,)),
    "cut after the length": (_cut(8), (FILE,)),
    "cut in the header": (_cut(100), (FILE,)),
    "cut in the data": (_cut(20_000), (FILE,)),
    "cut before the last byte": (_cut(-1), (FILE,)),
    "bytes behind the end": (
        lambda folder: (folder / FILE).write_bytes((folder / FILE).read_bytes() + b"\0"),
        (FILE,),
    ),
    "header of 2^62 bytes": (_header(lambda header: None, size=2**62), (FILE,)),
    "header of 99 MB": (_header(lambda header: None, size=99 * 2**20), (FILE,)),
    "header of no bytes": (_header(lambda header: b""), (FILE,)),
    "header not JSON": (_header(lambda header: b"not JSON"), (FILE,)),
    "header not UTF-8": (_header(lambda header: b'{"\xff": 1}'), (FILE,)),
    "header a list": (_header(lambda header: b"[1]"), (FILE,)),
    "header of brackets": (_header(lambda header: b"[" * 100_000), (FILE,)),
    "tensors that overlap": (_header(_overlap), (FILE,)),
    "tensor beyond the file": (_row(data_offsets=[10**9, 10**9 + 128]), (FILE,)),
    "negative offset": (_row(data_offsets=[-128, 0]), (FILE,)),
    "offsets turned round": (_row(data_offsets=[128, 0]), (FILE,)),
    "offsets missing": (_header(lambda header: header[NORM].pop("data_offsets")), (FILE,)),
    "unknown dtype": (_row(dtype="F99"), (FILE, "F99")),
    "shape of another product": (_row(shape=[33]), (FILE,)),
    "negative shape": (_row(shape=[-32]), (FILE,)),
    "shape beyond 64 bits": (_row(shape=[2**40, 2**40]), (FILE,)),
    "a name twice in the header": (_header(_duplicate), (FILE, NORM, "twice")),
    "a hole in the data": (_header(lambda header: header.pop(NORM)), (FILE,)),
    "missing tensor": (_tensors(**{NORM: None}), ("missing", NORM)),
    "unexpected tensor": (_tensors(spare=np.ones(2, np.float32)), ("unexpected", "spare")),
    "transposed tensor": (_tensors(**{KEY: lambda x: x.T.copy()}), (KEY, "(32, 16", "(16, 32")),
    "integers": (_tensors(**{KEY: lambda x: x.astype(np.int32)}), (KEY, "I32")),
    "truth values": (_tensors(**{KEY: lambda x: x > 0}), (KEY, "BOOL")),
    "eight-bit floats": (
        _tensors(**{KEY: lambda x: x.astype(ml_dtypes.float8_e4m3fn)}),
        (KEY, "F8_E4M3"),
    ),
    "NaN": (_tensors(**{KEY: _spoiled(np.nan)}), (KEY, "NaN")),
    "infinity in float16": (_tensors(**{KEY: _spoiled(np.inf, "float16")}), (KEY, "infinity")),
    "-infinity in bfloat16": (_tensors(**{KEY: _spoiled(-np.inf, "bfloat16")}), (KEY, "infinity")),
    "-NaN in bfloat16": (_tensors(**{KEY: _spoiled(-np.nan, "bfloat16")}), (KEY, "NaN")),
    "infinity in float64": (_tensors(**{KEY: _spoiled(np.inf, "float64")}), (KEY, "infinity")),
    "a flipped bit of the exponent": (_tensors(**{KEY: _spoiled(1e37)}), (KEY, "1e18")),
    "beyond float32": (_tensors(**{KEY: _spoiled(1e300, "float64")}), (KEY, "infinity")),
    "index to an absolute path": (_points("/etc/passwd"), (INDEX, NORM, "outside")),
    "index to the folder above": (_points("../outside.safetensors"), (INDEX, NORM, "outside")),
    "index to a subfolder": (_points("sub/model.safetensors"), (INDEX, NORM, "outside")),
    "index to dots": (_points(".."), (INDEX, NORM)),
    "index to a zero byte": (_points("a\0b"), (INDEX, NORM)),
    "index to a link that leads out": (_index(_link), (INDEX, "outside")),
    "index to a ring of links": (_index(_ring), (INDEX,)),
    "index to a missing shard": (_points("gone.safetensors"), (INDEX, "gone.safetensors")),
    "index to the wrong shard": (
        _index(lambda where, _: where.update({NORM: where[EMBED], EMBED: where[NORM]})),
        (INDEX, "the index says"),
    ),
    "index to a number": (_index(lambda where, _: where.update({NORM: 7})), (INDEX, NORM)),
    "index of a tensor that is nowhere": (
        _index(lambda where, _: where.update(phantom=where[NORM])),
        (INDEX, "phantom"),
    ),
    "index with a tensor twice": (_twice_in_index, (INDEX, NORM, "twice")),
    "a tensor in two shards": (_index(_twice_in_shards), (INDEX, NORM)),
    "index not JSON": (_text(INDEX, "{"), (INDEX, "JSON")),
    "index without weight_map": (_text(INDEX, "{}"), (INDEX, "weight_map")),
    "index with a list": (_text(INDEX, '{"weight_map": ["a"]}'), (INDEX, "weight_map")),
    "no config": (lambda folder: (folder / "config.json").unlink(), ("config.json",)),
    "config not JSON": (_text("config.json", "{'a': 1}"), ("config.json", "JSON")),
    "config a list": (_text("config.json", "[]"), ("config.json", "object")),
    "config of brackets": (_text("config.json", "[" * 100_000), ("config.json", "JSON")),
    "config of digits": (_text("config.json", "9" * 5000), ("config.json", "JSON")),
    "config without sizes": (
        _config(hidden_size=None, num_hidden_layers=None, vocab_size=None),
        ("hidden_size", "num_hidden_layers", "vocab_size"),
    ),
    "size in words": (_config(hidden_size="32"), ("hidden_size",)),
    "negative size": (_config(num_hidden_layers=-2), ("num_hidden_layers",)),
    "a trillion layers": (_config(num_hidden_layers=10**12), ("num_hidden_layers",)),
    "a hidden size of 2^60": (_config(hidden_size=2**60, **_WIDE), ("shape",)),
    "unknown model_type": (_config(model_type="trap"), ("model_type", "trap", "llama")),
    "no model_type": (_config(model_type=None), ("model_type",)),
    "GPTQ": (_config(quantization_config={"quant_method": "gptq", "bits": 4}), ("GPTQ",)),
    "AWQ": (_config(quantization_config={"quant_method": "awq", "bits": 4}), ("AWQ",)),
    "auto_map": (_config(auto_map=_TRAP), ("auto_map", "never run")),
    "unknown rope": (_config(rope_scaling={"rope_type": "trap", "factor": 2.0}), ("trap",)),
    "unknown key": (_config(trap_width=3), ("trap_width",)),
    "heads that do not divide": (_config(num_key_value_heads=3), ("num_key_value_heads",)),
    "head not tied and missing": (_config(tie_word_embeddings=False), ("lm_head.weight",)),
    "pickles alone": (_only_pickles, ("pickle", "pytorch_model.bin")),
    "vocabulary smaller than the tokenizer": (_fewer_rows, ("49152 tokens", "100 rows")),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), ("tokenizer",)),
    "tokenizer not JSON": (_text("tokenizer.json", "{"), ("tokenizer",)),
    "tokenizer of foreign code": (_foreign_tokenizer, ("tokenizer",)),
}
