"""Small sound GGUF and safetensors files, encoded by hand, and seeded mutations of them.

Half of the mutations change bytes of the header, half change what the header says.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from typing import Any

CONFIG = {
    "model_type": "llama",
    "vocab_size": 40,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 16,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
_SHAPES = {
    "token_embd.weight": (40, 8),
    "output_norm.weight": (8,),
    "blk.0.attn_norm.weight": (8,),
    "blk.0.attn_q.weight": (8, 8),
    "blk.0.attn_k.weight": (4, 8),
    "blk.0.attn_v.weight": (4, 8),
    "blk.0.attn_output.weight": (8, 8),
    "blk.0.ffn_norm.weight": (8,),
    "blk.0.ffn_gate.weight": (12, 8),
    "blk.0.ffn_up.weight": (12, 8),
    "blk.0.ffn_down.weight": (8, 12),
}
# What an architecture stores besides; None is not there.
_OTHER_SHAPES = {
    "llama": {"rope_freqs.weight": (2,)},
    "gemma3": {
        "blk.0.attn_q_norm.weight": (4,),
        "blk.0.attn_k_norm.weight": (4,),
        "blk.0.post_attention_norm.weight": (8,),
        "blk.0.post_ffw_norm.weight": (8,),
    },
    "qwen2": {f"blk.0.attn_{x}.bias": (8 if x == "q" else 4,) for x in "qkv"},
    "phi3": {f"blk.0.{x}.weight": None for x in ("attn_q", "attn_k", "attn_v", "ffn_gate")}
    | {"blk.0.attn_qkv.weight": (16, 8), "blk.0.ffn_up.weight": (24, 8)},
}
_HF = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "blk.0.": "layers.0.",
    "attn_norm": "input_layernorm",
    "attn_output": "self_attn.o_proj",
    "attn_": "self_attn.",
    "ffn_norm": "post_attention_layernorm",
    "ffn_": "mlp.",
    ".q.": ".q_proj.",
    ".k.": ".k_proj.",
    ".v.": ".v_proj.",
    ".gate.": ".gate_proj.",
    ".up.": ".up_proj.",
    ".down.": ".down_proj.",
}
U32, F32, BOOL, STRING, LIST = 4, 6, 7, 8, 9
_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"} | {
    12: "d"
}
_NUMBERS = [
    0,
    1,
    -1,
    2,
    7,
    39,
    40,
    41,
    255,
    2**16,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**63,
    -(2**31),
]
_NUMBERS += [2**64 - 1, 0.0, -0.5, 1e-300, 1e300, float("inf"), float("nan"), True, False]
_TEXTS = [
    "",
    " ",
    "a",
    "a b",
    "b a c",
    "\0",
    "\u2581",
    "é",
    "<s>",
    "x" * 3000,
    b"\xff",
    b"\xed\xa0\x80",
]
_TEXTS += ["llama", "gpt2", "gemma3", "phi3", "yarn", "longrope", "qwen2", "{{", "[PAD]", "<0x41>"]


def _hf_name(name: str) -> str:
    for ours, theirs in _HF.items():
        name = name.replace(ours, theirs)
    return f"model.{name}"


# --- sound files: metadata as key -> (type, value), tensors as name -> (shape, type, offset)


def sound_gguf(kind: str = "llama", architecture: str = "llama") -> tuple[dict, dict]:
    """Metadata and tensors of a file; `kind` is that of its tokenizer, "llama" or "gpt2"."""
    letters = [chr(ord("a") + i) for i in range(26)]
    tokens = ["<unk>", "<s>", "</s>", "\u2581", *letters, "ab", "abc", "\u2581a", "  ", "<x>"]
    if kind == "gpt2":
        tokens = [t.replace("\u2581", "Ġ").replace("  ", "ĠĠ") for t in tokens]
    tokens += [f"<0x{i:02X}>" for i in range(40 - len(tokens))]
    types = [2, 3, 3] + [1] * 30 + [4, 4] + [6] * 5
    names = {
        "block_count": (U32, 1),
        "context_length": (U32, 16),
        "embedding_length": (U32, 8),
        "feed_forward_length": (U32, 12),
        "attention.head_count": (U32, 2),
        "attention.head_count_kv": (U32, 1),
        "attention.layer_norm_rms_epsilon": (F32, 1e-5),
        "rope.freq_base": (F32, 1e4),
        "rope.dimension_count": (U32, 4),
    }
    values = {"general.architecture": (STRING, architecture)}
    values |= {f"{architecture}.{key}": value for key, value in names.items()}
    ggml = {
        "model": (STRING, kind),
        "pre": (STRING, "gpt-2" if kind == "gpt2" else "default"),
        "tokens": (LIST, (STRING, tokens)),
        "token_type": (LIST, (5, types)),
        "bos_token_id": (U32, 1),
        "eos_token_id": (U32, 2),
        "unknown_token_id": (U32, 0),
        "padding_token_id": (U32, 2),
        "eot_token_id": (U32, 34),
        "add_bos_token": (BOOL, True),
        "add_space_prefix": (BOOL, False),
    }
    if kind == "gpt2":
        ggml["merges"] = (LIST, (STRING, ["a b", "ab c", "Ġ a"]))
    else:
        ggml["scores"] = (LIST, (F32, [-float(i) for i in range(40)]))
    values |= {f"tokenizer.ggml.{key}": value for key, value in ggml.items()}
    values["tokenizer.chat_template"] = (STRING, "{{ messages[0]['content'] }}")
    values["general.alignment"] = (U32, 32)
    tensors, offset = {}, 0
    shapes = _SHAPES | _OTHER_SHAPES.get(architecture, {})
    for name, shape in shapes.items():
        if shape is None:
            continue
        tensors[name] = (shape, 0, offset)
        size = 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        offset += size + -size % 32
    return values, tensors


def sound_safetensors() -> dict[str, Any]:
    """The header of a file."""
    rows, offset = {}, 0
    for name, shape in _SHAPES.items():
        size = 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        offsets = [offset, offset + size]
        rows[_hf_name(name)] = {"dtype": "F32", "shape": list(shape), "data_offsets": offsets}
        offset += size
    return {"__metadata__": {"format": "pt"}} | rows


# --- encoding


def _text(text: str | bytes) -> bytes:
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(raw)) + raw


def _number(kind: int, value: Any) -> bytes:
    """The nearest that the type can say."""
    form = _FORMATS[kind]
    if form in "fd":
        try:
            return struct.pack(f"<{form}", float(value))
        except OverflowError:
            return struct.pack(f"<{form}", float("inf"))
    if form == "?":
        return struct.pack("?", bool(value))
    whole = int(value) if value == value and abs(value) < 2**70 else 0
    bits = 8 * struct.calcsize(form)
    return (whole % 2**bits).to_bytes(bits // 8, "little")


def _value(kind: int, value: Any) -> bytes:
    if kind == STRING:
        return _text(value if isinstance(value, str | bytes) else str(value))
    if kind == LIST:
        inner, values = value
        many = b"".join(_value(inner, one) for one in values)
        return struct.pack("<IQ", inner, len(values)) + many
    return _number(kind, value if isinstance(value, int | float) else 3)


def encode_gguf(values: dict, tensors: dict) -> tuple[bytes, int]:
    """The bytes of a file and how many of them are header; weights are ones."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values))
    for key, (kind, value) in values.items():
        head += _text(key) + struct.pack("<I", kind) + _value(kind, value)
    end = 0
    for name, (shape, kind, offset) in tensors.items():
        dims = b"".join(_number(10, n) for n in reversed(shape))
        head += _text(name) + struct.pack("<I", len(shape)) + dims
        head += _number(4, kind) + _number(10, offset)
        end = max(end, offset + 2048 if isinstance(offset, int) and 0 <= offset < 2**16 else 0)
    head += bytes(-len(head) % 32)
    return head + struct.pack("<f", 1.0) * (end // 4), len(head)


def encode_safetensors(rows: dict[str, Any]) -> tuple[bytes, int]:
    """The bytes of a file and how many of them are header; weights are ones."""
    head = json.dumps(rows).encode("utf-8", "surrogatepass")
    end = sum(4 * shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in _SHAPES.values())
    weights = struct.pack("<f", 1.0) * (end // 4)
    return struct.pack("<Q", len(head)) + head + weights, 8 + len(head)


# --- mutations


def mutated_bytes(rng: random.Random, data: bytes, header: int) -> bytes:
    """Some bytes of the header changed, put in, taken out or repeated, or the file cut."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5, 30))):
        place = rng.randrange(min(header, len(changed)) or 1)
        what = rng.randrange(7)
        if what == 0:
            changed[place : place + 1] = bytes([rng.randrange(256)])
        elif what == 1:
            width = rng.choice((1, 2, 4, 8))
            changed[place : place + width] = _number(10, rng.choice(_NUMBERS))[:width]
        elif what == 2:
            del changed[place : place + rng.randrange(1, 20)]
        elif what == 3:
            changed[place:place] = rng.randbytes(rng.randrange(1, 20))
        elif what == 4:
            other = rng.randrange(len(changed) or 1)
            changed[place : place + 8] = changed[other : other + 8]
        elif what == 5 and changed:
            changed[place : place + 1] = bytes([(changed + b"\0")[place] ^ 1 << rng.randrange(8)])
        elif rng.random() < 0.2:
            del changed[place:]
    return bytes(changed)


def _other_number(rng: random.Random, value: Any) -> Any:
    near = value + rng.choice((-2, -1, 1, 2)) if isinstance(value, int) else value
    return rng.choice((rng.choice(_NUMBERS), rng.choice(_NUMBERS), near))


def _other_list(rng: random.Random, values: list, other: Callable[[Any], Any]) -> list:
    """A list that is shorter, longer, in another order, or has another value or one twice."""
    values, place = list(values), rng.randrange(len(values) or 1)
    what = rng.randrange(8)
    if what == 0:
        return []
    if what == 1:
        return values[:place]
    if what == 2:
        return values + values[place:]
    if what == 3:
        return (values * rng.choice((2, 500)))[:50_000]
    if what == 4:
        rng.shuffle(values)
    elif values and what == 5:
        values[place] = rng.choice(values)
    elif values:
        for _ in range(rng.choice((1, 1, 3))):
            values[rng.randrange(len(values))] = other(values[place])
    return values


def _other_value(rng: random.Random, kind: int, value: Any) -> tuple[int, Any]:
    """Another value of a metadata key, or one of another type."""
    if rng.random() < 0.2:
        kind = rng.choice([*_FORMATS, STRING, STRING, 13])
        if kind == 13:
            inner = rng.choice([*_FORMATS, STRING, STRING])
            given = _TEXTS if inner == STRING else _NUMBERS
            many = [rng.choice(given) for _ in range(rng.choice((0, 1, 2, 40)))]
            return LIST, (inner, many)
        return kind, rng.choice(_TEXTS if kind == STRING else _NUMBERS)
    if kind == LIST:
        inner, values = value
        if rng.random() < 0.1:
            return LIST, (rng.choice([*_FORMATS, STRING]), values)
        if inner == STRING:
            other = lambda text: _other_text(rng, text)
        else:
            other = lambda number: _other_number(rng, number)
        return LIST, (inner, _other_list(rng, values, other))
    return kind, _other_text(rng, value) if kind == STRING else _other_number(rng, value)


def _other_text(rng: random.Random, text: Any) -> str | bytes:
    if not isinstance(text, str):  # bytes, or what a mutation before this one says is text
        return rng.choice(_TEXTS)
    return rng.choice((*_TEXTS, text * 2, text[:-1], text + " ", f"{text} {text}", text.upper()))


def _drop_or_repeat(rng: random.Random, rows: dict) -> None:
    key = rng.choice(list(rows))
    value = rows.pop(key)
    if rng.random() < 0.5:
        rows[rng.choice((key + "x", rng.choice(list(rows) or ["x"]), "", "\ud800", key * 60))] = (
            value
        )


def mutated_gguf(rng: random.Random, sound: list[tuple[dict, dict]]) -> bytes:
    """One of the files, mutated."""
    values, tensors = map(dict, rng.choice(sound))
    if rng.random() < 0.4:
        return mutated_bytes(rng, *encode_gguf(values, tensors))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if rng.random() < 0.7:
            lists = [key for key, (kind, _) in values.items() if kind == LIST]
            key = rng.choice(lists if lists and rng.random() < 0.4 else list(values))
            values[key] = _other_value(rng, *values[key])
        elif rng.random() < 0.3 and len(values) > 2:
            _drop_or_repeat(rng, values)
        elif rng.random() < 0.2 and len(tensors) > 2:
            _drop_or_repeat(rng, tensors)
        else:
            name = rng.choice(list(tensors))
            shape, kind, offset = tensors[name]
            shape = tuple(_other_list(rng, shape, lambda n: _other_number(rng, n)))[:9]
            shape = rng.choice((shape, tensors[name][0]))
            kind = rng.choice((kind, rng.randrange(45), 2**31))
            tensors[name] = shape, kind, rng.choice((offset, offset, _other_number(rng, offset)))
    return encode_gguf(values, tensors)[0]


def _other_json(rng: random.Random, value: Any) -> Any:
    if isinstance(value, list) and rng.random() < 0.7:
        return _other_list(rng, value, lambda one: _other_json(rng, one))
    if isinstance(value, int) and rng.random() < 0.6:
        return _other_number(rng, value)
    text = [one for one in _TEXTS if isinstance(one, str)]
    choices = [rng.choice(_NUMBERS), rng.choice(text), None, [], {}, [[[1]]], {"a": [1]}, 10**40]
    return rng.choice([*choices, "BF16", "F64", "I64", "BOOL", "F8_E4M3", "F4", "\ud800"])


def mutated_safetensors(rng: random.Random, sound: dict[str, Any]) -> bytes:
    """The file, mutated."""
    rows = json.loads(json.dumps(sound))
    if rng.random() < 0.5:
        data, header = encode_safetensors(rows)
        if rng.random() < 0.5:
            return mutated_bytes(rng, data, header)
        head = mutated_bytes(rng, data[8:header], header - 8)
        return struct.pack("<Q", len(head)) + head + data[header:]
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        name = rng.choice(list(rows))
        if rng.random() < 0.2 and len(rows) > 2:
            _drop_or_repeat(rng, rows)
        elif rng.random() < 0.1 or not isinstance(rows[name], dict) or not rows[name]:
            rows[name] = _other_json(rng, rows[name])
        elif rng.random() < 0.1:
            _drop_or_repeat(rng, rows[name])
        else:
            key = rng.choice(list(rows[name]))
            rows[name][key] = _other_json(rng, rows[name][key])
    data, header = encode_safetensors(rows)
    return mutated_bytes(rng, data, header) if rng.random() < 0.1 else data
