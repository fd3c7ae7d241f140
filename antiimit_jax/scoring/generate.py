"""Continuations of prompts, greedy or sampled, with a cache of keys and values.

A prompt is computed once, however many answers are drawn from it. Its samples lie side by side, W
in a row of the batch, and each step adds one token to every sample: the rows are sequences of W
tokens that see the prompt's keys and those of their own sample. The token at step s is the one at
place u of the cumulative distribution, where u in [0, 1) depends on seed, prompt, sample and s
alone: neither batches nor devices change what is drawn.

Letters beyond `models.decoder`'s: here T is of a prompt, J chunks run one after the other, B rows
of W samples each in a chunk, S new tokens.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from antiimit_jax.errors import UserError
from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.decoder import Decoder, Forest, Past
from antiimit_jax.parallel import DATA
from antiimit_jax.scoring.trie import Ids

Array = jax.Array
Tree = Any
_SAMPLES = 256  # that take a step together, at most
_PLACES = 8192  # keys of a chunk's cache, at most
_ROW = 64  # samples of a row, at most
_BLOCK = 256  # tokens of the vocabulary summed at once
NOT_FINITE = -2  # in place of a token where logits are not finite


class Continuation(NamedTuple):
    """What a model said."""

    tokens: Ids  # with the one that ended it
    text: str  # without it
    ended: bool  # or else cut after so many tokens


class Draws(NamedTuple):
    """Prompts and the samples to draw from them; P prompts, J chunks of B rows of W samples."""

    tokens: np.ndarray  # int32 [P, T] the last one of each prompt in the last column
    length: np.ndarray  # int32 [P]
    prompt: np.ndarray  # int32 [J, B] which prompt a row continues
    place: np.ndarray  # float32 [J, B, W, S] of each token in its distribution; -1 on padding


class Drawn(NamedTuple):
    """Batches of one static shape, and whose samples their rows hold."""

    batches: list[Draws]
    rows: list[list[tuple[int, int]]]  # [batch][row] (prompt, first sample)
    empty: Draws


def greedy(decoder: Decoder, variables: Tree, ends: Array, batch: Draws) -> Array:
    """The most probable tokens one by one, int32 [J, B, W, S]; -1 after a token of `ends`.

    NOT_FINITE where logits are not.
    """
    largest = lambda logits, place: jnp.broadcast_to(logits.argmax(-1)[:, None], place.shape)
    return _generate(decoder, variables, ends, batch, largest)


def sampled(
    decoder: Decoder, variables: Tree, ends: Array, temperature: Array, batch: Draws
) -> Array:
    """Tokens drawn from softmax(logits / temperature), int32 [J, B, W, S]; -1 after an end."""
    drawn = lambda logits, place: draw(logits / temperature, place)
    return _generate(decoder, variables, ends, batch, drawn)


def _sound(logits: Array, token: Array) -> Array:
    """Tokens [R, n] after logits [R, V]; NOT_FINITE where these are NaN or infinite."""
    return jnp.where(jnp.isfinite(logits).all(-1, keepdims=True), token, NOT_FINITE)


def draw(logits: Array, place: Array) -> Array:
    """The tokens at given places of the cumulative distribution.

    Args:
      logits: float32 [R, V].
      place: float32 [R, n] in [0, 1).

    Returns:
      int32 [R, n]. First the block of tokens is found, then the token within: sums stay short.
    """
    V = logits.shape[-1]
    p = jnp.exp(logits - logits.max(-1, keepdims=True))
    p = jnp.pad(p, ((0, 0), (0, -V % _BLOCK))).reshape(len(p), -1, _BLOCK)
    p = jax.lax.optimization_barrier(p)
    ends = jnp.cumsum(p.sum(-1), axis=-1)  # [R, blocks]
    block, at = _find(ends[:, None], place * ends[:, -1:])
    start = jnp.where(block > 0, jnp.take_along_axis(ends, jnp.maximum(block - 1, 0), 1), 0)
    inside = jnp.cumsum(jnp.take_along_axis(p, block[..., None], axis=1), axis=-1)
    token, _ = _find(inside, at - start)
    return block * _BLOCK + token


def _find(ends: Array, at: Array) -> tuple[Array, Array]:
    """The first of the ends [..., n, parts] beyond `at` [..., n], which is kept between them.

    So a part of no width is never found.
    """
    last = ends[..., -1]
    at = jnp.clip(at, 0, jnp.nextafter(last, jnp.zeros_like(last)))
    return (ends <= at[..., None]).sum(-1), at


def _generate(
    decoder: Decoder, variables: Tree, ends: Array, batch: Draws, choose: Callable
) -> Array:
    first, cache = _prefill(decoder, variables, batch.tokens, batch.length)
    sound = lambda logits, place: _sound(logits, choose(logits, place))

    def chunk(_: None, rows: tuple[Array, Array]) -> tuple[None, Array]:
        prompt, place = rows
        its = jax.tree.map(lambda leaf: leaf[:, prompt], cache)
        length = batch.length[prompt]
        return None, _chunk(decoder, variables, ends, (first[prompt], its, length), place, sound)

    return jax.lax.scan(chunk, None, (batch.prompt, batch.place))[1]


def _prefill(decoder: Decoder, variables: Tree, tokens: Array, length: Array) -> tuple:
    """Logits after every prompt [P, V], its keys and values [L, P, T, K, H].

    A prompt without its last token is the shared prefix, in the decoder's sense, of that token.
    """
    P = len(tokens)
    before = length - 1
    forest = Forest(
        tokens=tokens[:, -1:],
        positions=before[:, None],
        subtree_end=jnp.ones((P, 1), jnp.int32),
        trunk_of=jnp.arange(P),
        trunk_tokens=tokens[:, :-1],
        trunk_length=before,
    )
    hidden, kept = decoder.apply(variables, forest, mutable=["cache"])
    return decoder.apply(variables, hidden[:, 0], method="logits"), kept["cache"]


def _chunk(
    decoder: Decoder,
    variables: Tree,
    ends: Array,
    prompts: tuple[Array, Tree, Array],
    place: Array,
    choose: Callable,
) -> Array:
    """The tokens of one chunk, int32 [B, W, S]."""
    first, cache, length = prompts  # [B, V], [L, B, T, K, H], [B]
    B, W, S = place.shape
    T = jax.tree.leaves(cache)[0].shape[2]
    more = ((0, 0), (0, 0), (0, W * (S - 1)), (0, 0), (0, 0))
    cache = jax.tree.map(lambda leaf: jnp.pad(leaf, more), cache)  # [L, B, C, K, H]
    step, sample = jnp.divmod(jnp.arange(W * (S - 1)), W)  # of each key that is to come
    known = jnp.arange(T)[None] < (length - 1)[:, None]  # [B, T]
    known = known.at[:, -1].set(True)
    where = jnp.broadcast_to(jnp.arange(T), (B, T)).at[:, -1].set(length - 1)
    where = jnp.concatenate([where, length[:, None] + step[None]], axis=1)  # [B, C]
    none = jnp.zeros((1, 0), jnp.int32)

    def take(s: Array | int, token: Array, said: Array, ended: Array) -> tuple[Array, Array]:
        """Writes the tokens of step s; all that follow an end are -1."""
        said = said.at[:, :, s].set(jnp.where(ended, -1, token))
        return said, ended | ends[token] | (token < 0)

    def following(state: tuple) -> tuple:
        s, said, ended, cache, _ = state
        own = (sample[None] == jnp.arange(W)[:, None]) & (step < s - 1)[None]  # [W, W (S - 1)]
        seen = (jnp.broadcast_to(known[:, None], (B, W, T)), jnp.broadcast_to(own, (B, *own.shape)))
        forest = Forest(
            tokens=jnp.maximum(said[:, :, s - 1], 0),
            positions=jnp.broadcast_to((length + s - 1)[:, None], (B, W)),
            subtree_end=jnp.broadcast_to(jnp.arange(1, W + 1), (B, W)),  # sees itself alone
            trunk_of=jnp.zeros(B, jnp.int32),
            trunk_tokens=none,
            trunk_length=jnp.zeros(1, jnp.int32),
            past=Past(jnp.concatenate(seen, axis=-1), where),
        )
        with_cache = {**variables, "cache": cache}
        hidden, new = decoder.apply(with_cache, forest, mutable=["cache"])
        write = lambda old, new: jax.lax.dynamic_update_slice_in_dim(
            old, new.astype(old.dtype), T + (s - 1) * W, axis=2
        )
        cache = jax.tree.map(write, cache, new["cache"])
        logits = decoder.apply(variables, hidden.reshape(B * W, -1), method="logits")
        token = choose(logits, place[:, :, s].reshape(B * W, 1)).reshape(B, W)
        said, ended = take(s, token, said, ended)
        return s + 1, said, ended, cache, _any(~ended)

    said, padding = jnp.full((B, W, S), -1, jnp.int32), place[..., 0] < 0
    said, ended = take(0, choose(first, place[..., 0]), said, padding)
    state = (1, said, ended, cache, _any(~ended))
    return jax.lax.while_loop(lambda state: (state[0] < S) & state[4], following, state)[1]


def _any(flags: Array) -> Array:
    """On any device or row of a mesh: all take a step or none."""
    return jax.lax.pmax(flags.any().astype(jnp.int32), DATA) > 0


def places(seed: int, prompt_ids: Ids, n: int, steps: int) -> np.ndarray:
    """Where in its distribution each token of n samples lies, float32 [n, steps] in [0, 1)."""
    hashed = hashlib.sha256(np.array(prompt_ids, np.int64).tobytes()).digest()
    spawn = lambda number: np.random.default_rng([seed, *hashed, number])
    return np.stack([spawn(i).random(steps, np.float32) for i in range(n)])


def pack_draws(
    prompts: Sequence[Ids], place: np.ndarray, cfg: ModelConfig | None, *, devices: int = 1
) -> Iterator[Drawn]:
    """Prompts and their samples in a few static shapes.

    Args:
      place: float32 [prompts, n, S], see `places`.
      cfg: None for a model that reads any length alike.

    Raises:
      UserError: a prompt that with its continuation is longer than the model's window, or that
        passes the length from which on the model's rope changes.
    """
    _, n, S = place.shape
    groups: dict[tuple, list[int]] = {}
    ropes = cfg.ropes if cfg else ()
    for i, ids in enumerate(prompts):
        if cfg:
            _check_length(len(ids), S, cfg)
        beyond = tuple(len(ids) > rope.original for rope in ropes)  # LongRoPE reads it otherwise
        groups.setdefault((_size(len(ids)), beyond), []).append(i)
    for (T, _), members in sorted(groups.items()):
        W = max(1, min(n, T // S, _ROW))
        rows = [(i, first) for i in members for first in range(0, n, W)]
        B = max(1, min(_PLACES // (T + W * S), _SAMPLES // W, -(-len(rows) // devices)))
        of_prompt = -(-n // W) // B  # chunks
        J = max(1, min(of_prompt, -(-len(rows) // (B * devices))))
        parts = [rows[at : at + J * B] for at in range(0, len(rows), J * B)]
        P = max(len({i for i, _ in part}) for part in parts)
        empty = Draws(
            tokens=np.zeros((P, T), np.int32),
            length=np.ones(P, np.int32),
            prompt=np.zeros((J, B), np.int32),
            place=np.full((J, B, W, S), -1, np.float32),
        )
        batches = [_filled(part, prompts, place, empty) for part in parts]
        yield Drawn(batches, parts, empty)


def _filled(
    rows: Sequence[tuple[int, int]], prompts: Sequence[Ids], place: np.ndarray, empty: Draws
) -> Draws:
    batch = Draws(*(array.copy() for array in empty))
    numbers: dict[int, int] = {}
    whose, where = batch.prompt.reshape(-1), batch.place.reshape(-1, *batch.place.shape[2:])
    for row, (i, first) in enumerate(rows):
        number, ids = numbers.setdefault(i, len(numbers)), prompts[i]
        batch.tokens[number, : len(ids) - 1] = ids[:-1]
        batch.tokens[number, -1], batch.length[number] = ids[-1], len(ids)
        some = place[i, first : first + where.shape[1]]
        whose[row], where[row, : len(some)] = number, some
    return batch


def _size(length: int) -> int:
    """The least of 32, 48, 64, 96, 128, ... that is long enough."""
    power = max(32, 1 << (length - 1).bit_length())
    return 3 * power // 4 if 32 < power and length <= 3 * power // 4 else power


def _check_length(length: int, more: int, cfg: ModelConfig) -> None:
    if length + more > cfg.max_positions:
        raise UserError(
            f"a prompt of {length} tokens with {more} more passes the model's window of "
            f"{cfg.max_positions}: shorten the prompt or ask for fewer tokens"
        )
    for rope in cfg.ropes:
        if rope.kind == "longrope" and length <= rope.original < length + more - 1:
            raise UserError(
                f"a prompt of {length} tokens with {more} more passes {rope.original} tokens, from "
                "where on this model reads positions otherwise: shorten the prompt or ask for "
                "fewer tokens"
            )
