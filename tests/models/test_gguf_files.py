"""GGUF files give the logits of the model they were written from, or one line of refusal."""

from __future__ import annotations

import struct

import gguf
import numpy as np
import pytest
import torch

from tests.models.gguf_files import rounded_q4_1, rounded_q8_0, write_gguf
from tests.models.llama_peer import assert_same_logits, load, our_logits, random_llama, torch_logits
from tests.models.refusals import refused

Kind = gguf.GGMLQuantizationType
# Sizes are multiples of 32: a block of every quantised type, and no padding after any tensor.
SIZES = dict(hidden_size=32, intermediate_size=64, num_attention_heads=4, head_dim=8, vocab_size=48)


def _tokens(model):
    return np.random.default_rng(4).integers(0, model.config.vocab_size, (2, 10))


@pytest.mark.parametrize(
    "shape",
    [
        dict(SIZES, num_key_value_heads=2),
        dict(SIZES, num_key_value_heads=1, tie_word_embeddings=True),
        dict(SIZES, num_key_value_heads=4, head_dim=12),
    ],
    ids=["grouped heads", "one key head, tied", "heads wider than hidden"],
)
def test_a_gguf_file_has_the_logits_of_torch(shape, tmp_path):
    model = random_llama(**shape)
    cfg, params = load(write_gguf(model, tmp_path / "m.gguf"))
    assert_same_logits(our_logits(params, cfg, _tokens(model)), torch_logits(model, _tokens(model)))


def _rounded_by_the_package(kind):
    return lambda array: gguf.quants.dequantize(gguf.quants.quantize(array, kind), kind)


@pytest.mark.parametrize(
    "kind, rounded",
    [
        (Kind.Q8_0, rounded_q8_0),
        (Kind.Q4_1, rounded_q4_1),
        (Kind.F16, lambda array: torch.from_numpy(array).half().float().numpy()),
        (Kind.BF16, lambda array: torch.from_numpy(array).bfloat16().float().numpy()),
        *((kind, _rounded_by_the_package(kind)) for kind in (Kind.Q4_0, Kind.Q5_0, Kind.Q5_1)),
        (Kind.MXFP4, _rounded_by_the_package(Kind.MXFP4)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_quantised_matrices_mean_what_their_format_says(kind, rounded, tmp_path):
    model = random_llama(**SIZES)
    cfg, params = load(write_gguf(model, tmp_path / "m.gguf", kind=kind))
    exact = torch_logits(model, _tokens(model))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.copy_(torch.from_numpy(rounded(parameter.numpy())))
    stored = torch_logits(model, _tokens(model))
    ours = our_logits(params, cfg, _tokens(model))
    assert_same_logits(ours, stored)
    assert np.abs(ours - exact).max() > 10 * np.abs(ours - stored).max()


def test_metadata_that_may_be_left_out_follows_from_the_rest(tmp_path):
    model = random_llama(**SIZES, rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    missing = dict.fromkeys(
        ["attention.key_length", "attention.value_length", "vocab_size", "rope.freq_base"]
    )
    cfg, params = load(write_gguf(model, tmp_path / "m.gguf", metadata=missing))
    assert_same_logits(our_logits(params, cfg, _tokens(model)), torch_logits(model, _tokens(model)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a sound file."""
    file = tmp_path_factory.mktemp("whole") / "m.gguf"
    numbers = {".general.numbers": [1, 2, 3]}
    return write_gguf(random_llama(**SIZES), file, metadata=numbers).read_bytes()


def test_a_file_truncated_anywhere_is_refused(whole, tmp_path):
    file = tmp_path / "cut.gguf"
    start = whole.index(b"token_embd")
    cuts = [0, 3, 8, 20, *range(24, start + 1500, 37), len(whole) // 2, len(whole) - 1]
    for size in cuts:
        file.write_bytes(whole[:size])
        with refused(str(file), "GGUF", "fetch it again"):
            load(file)
    file.write_bytes(whole)
    load(file)


def test_the_embedded_file_truncated_is_refused(smollm2, tmp_path):
    file, whole = tmp_path / "cut.gguf", smollm2.source.path.read_bytes()
    for size in (10_000, len(whole) - 1):
        file.write_bytes(whole[:size])
        with refused(str(file), "fetch it again"):
            load(file)


def test_damage_in_the_header_is_refused_or_harmless_but_never_a_crash(whole, tmp_path):
    rng, file = np.random.default_rng(0), tmp_path / "damaged.gguf"
    refusals = 0
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[rng.integers(4, 2500)] = rng.integers(256)
        file.write_bytes(damaged)
        try:
            load(file)
        except ValueError as error:
            with refused(str(file)):
                raise error
            refusals += 1
    assert 50 < refusals < 200


@pytest.mark.parametrize("place", [8, 16, 24], ids=["tensor count", "key count", "name length"])
@pytest.mark.parametrize("count", [2**40, 2**63, 2**64 - 1])
def test_false_counts_end_at_once(whole, place, count, tmp_path):
    file = tmp_path / "counts.gguf"
    file.write_bytes(whole[:place] + struct.pack("<Q", count) + whole[place + 8 :])
    with refused(str(file), "GGUF"):
        load(file)


@pytest.mark.parametrize("count", [10**7, 2**40, 2**63, 2**64 - 1])
@pytest.mark.parametrize("kind", [0, 4, 8, 9], ids=["bytes", "integers", "strings", "lists"])
def test_a_list_of_false_length_ends_at_once(whole, kind, count, tmp_path):
    """Even where the file is long enough to hold such a list."""
    file, place = tmp_path / "list.gguf", whole.index(b"general.numbers") + len("general.numbers")
    header = struct.pack("<IIQ", 9, kind, count)
    file.write_bytes(whole[:place] + header + bytes(1000))
    with file.open("ab") as sparse:
        sparse.truncate(2 * 10**7)
    with refused(str(file), "not a readable GGUF", str(count)):
        load(file)


def test_lists_within_lists_without_end_are_refused(whole, tmp_path):
    file, place = tmp_path / "list.gguf", whole.index(b"general.numbers") + len("general.numbers")
    file.write_bytes(whole[:place] + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 5000)
    with refused(str(file), "not a readable GGUF"):
        load(file)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"PK\x03\x04" * 50, b"GGML" + b"\0" * 100])
def test_a_file_that_is_no_gguf_is_refused(content, tmp_path):
    file = tmp_path / "odd.gguf"
    file.write_bytes(content)
    with refused(str(file), "not a readable GGUF"):
        load(file)


METADATA = {
    "another rope": ({"rope.scaling.type": "ntk"}, ["rope.scaling.type", "ntk"]),
    "yarn without factor": ({"rope.scaling.type": "yarn"}, ["yarn", "factor"]),
    "longrope without tensors": ({"rope.scaling.type": "longrope"}, ["longrope", "tensor"]),
    "a factor for no scaling": (
        {"rope.scaling.type": "none", "rope.scaling.factor": 4.0},
        ["rope.scaling.factor", "4.0"],
    ),
    "attention factor": ({"rope.scaling.attn_factor": 1.5}, ["rope.scaling.attn_factor", "1.5"]),
    "negative factor": (
        {"rope.scaling.type": "linear", "rope.scaling.factor": -2.0},
        ["factor", "-2.0"],
    ),
    "word for a base": ({"rope.freq_base": "many"}, ["rope_theta", "many"]),
    "base next to zero": ({"rope.freq_base": 1e-30}, ["rope_theta"]),
    "base that is none": ({"rope.freq_base": float("nan")}, ["rope_theta", "nan"]),
    "epsilon without end": (
        {"attention.layer_norm_rms_epsilon": float("inf")},
        ["rms_norm_eps", "inf"],
    ),
    "experts": ({"expert_count": 8}, ["llama.expert_count", "8"]),
    "scaled queries": ({"attention.scale": 0.5}, ["llama.attention.scale"]),
    "partial rope": ({"rope.dimension_count": 4}, ["rotary", "4"]),
    "no rope": ({"rope.dimension_count": 0}, ["rotary", "0"]),
    "other values": ({"attention.value_length": 4}, ["value", "4"]),
    "no epsilon": (
        {"attention.layer_norm_rms_epsilon": None},
        ["llama.attention.layer_norm_rms_epsilon"],
    ),
    "no width": ({"embedding_length": None}, ["hidden_size"]),
    "word for a width": ({"embedding_length": "wide"}, ["hidden_size", "wide"]),
    "no layers": ({"block_count": None}, ["num_hidden_layers"]),
    "false layers": ({"block_count": 2**31}, ["2147483648", "num_hidden_layers"]),
    "no heads": ({"attention.head_count": None}, ["num_attention_heads"]),
    "heads a layer": ({"attention.head_count": [4, 4]}, ["num_attention_heads", "4, 4"]),
    "heads that do not divide": ({"attention.head_count_kv": 3}, ["num_key_value_heads", "3"]),
    "other head count": ({"attention.head_count": 8}, ["q_proj.weight", "shape"]),
    "one of several parts": ({".split.count": 3}, ["parts", "3"]),
}


@pytest.mark.parametrize("fault", METADATA)
def test_metadata_that_is_not_understood_is_refused_by_name(fault, tmp_path):
    metadata, named = METADATA[fault]
    file = write_gguf(random_llama(**SIZES), tmp_path / "m.gguf", metadata=metadata)
    with refused(str(file), *named):
        load(file)


@pytest.mark.parametrize("name", ["mamba", "gemma3n", ""])
def test_an_architecture_that_is_not_ported_is_refused(name, tmp_path):
    change = {"architecture": name} if name else {"metadata": {".general.architecture": [1, 2]}}
    file = write_gguf(random_llama(**SIZES), tmp_path / "m.gguf", **change)
    with refused(str(file), name or "[1, 2]", "llama"):
        load(file)


def test_a_file_of_the_other_byte_order_is_refused(tmp_path):
    big = gguf.GGUFEndian.BIG
    file = write_gguf(random_llama(**SIZES), tmp_path / "m.gguf", endianess=big)
    with refused(str(file), "big-endian"):
        load(file)


def _tensor(name, values):
    return lambda tensors: tensors.update({name: np.asarray(values, np.float32)})


ROPE_TENSORS = {
    "too short": (_tensor("rope_freqs.weight", [1, 1, 1]), {}, ["rope_freqs.weight", "4"]),
    "too deep": (_tensor("rope_freqs.weight", [[1] * 4]), {}, ["rope_freqs.weight", "4"]),
    "zero": (_tensor("rope_freqs.weight", [1, 0, 1, 1]), {}, ["rope_freqs.weight", "positive"]),
    "infinite": (_tensor("rope_freqs.weight", [1, np.inf, 1, 1]), {}, ["rope_freqs.weight"]),
    "beside a factor": (
        _tensor("rope_freqs.weight", [1] * 4),
        {"rope.scaling.type": "linear", "rope.scaling.factor": 2.0},
        ["rope_freqs.weight", "linear"],
    ),
    "for another type": (
        _tensor("rope_factors_long.weight", [1] * 4),
        {"rope.scaling.type": "yarn", "rope.scaling.factor": 2.0},
        ["rope_factors_long.weight", "yarn"],
    ),
    "long without short": (
        _tensor("rope_factors_long.weight", [1] * 4),
        {"rope.scaling.original_context_length": 16},
        ["rope_factors_short.weight"],
    ),
    "without the first length": (
        lambda tensors: [
            _tensor(f"rope_factors_{length}.weight", [1] * 4)(tensors)
            for length in ("long", "short")
        ],
        {},
        ["rope.scaling.original_context_length"],
    ),
}


@pytest.mark.parametrize("fault", ROPE_TENSORS)
def test_rope_tensors_that_contradict_the_metadata_are_refused(fault, tmp_path):
    change, metadata, named = ROPE_TENSORS[fault]
    file = write_gguf(random_llama(**SIZES), tmp_path / "m.gguf", change=change, metadata=metadata)
    with refused(str(file), *named):
        load(file)


def _spoil(tensors: dict[str, np.ndarray]) -> None:
    del tensors["blk.1.attn_q.weight"]
    tensors["blk.0.attn_q.scale"] = np.ones(1, np.float32)
    tensors["blk.0.attn_k.weight"] = np.ones((15, 32), np.float32)
    tensors["output_norm.weight"] = np.full(32, np.inf, np.float32)


def test_all_faulty_tensors_are_listed_together(tmp_path):
    file = write_gguf(random_llama(**SIZES), tmp_path / "m.gguf", change=_spoil)
    with refused(
        str(file),
        "4 faulty tensors",
        "missing model.layers.1.self_attn.q_proj.weight",
        "unexpected blk.0.attn_q.scale",
        "model.layers.0.self_attn.k_proj.weight has shape (15, 32",
        "model.norm.weight holds NaN or infinity",
    ):
        load(file)


def test_a_tensor_of_integers_is_refused(tmp_path):
    def integers(tensors: dict[str, np.ndarray]) -> None:
        tensors["blk.0.ffn_up.weight"] = np.ones((64, 32), np.int32)

    file = write_gguf(random_llama(**SIZES), tmp_path / "m.gguf", change=integers)
    with refused(str(file), "up_proj.weight", "I32"):
        load(file)
