"""What lies in a device's memory at once, phase by phase of `evaluate`, `finetune` and `study`.

Parameters, adapters and optimizer states are counted on abstract shapes; temporaries are what XLA's
CPU compiler sets aside for our real functions on those shapes (`memory_analysis`). A TPU's or GPU's
compiler lays them out differently; weights, which dominate, are the same everywhere.

`pmap` replicates: every device holds the whole model. Training runs on the first device alone.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from antiimit_jax.evaluation.drift import differences
from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.decoder import Decoder, sequences
from antiimit_jax.models.lora import init_adapter, train_mask
from antiimit_jax.models.weights import is_matrix
from antiimit_jax.parallel import DataParallel
from antiimit_jax.planning.hardware import GIB
from antiimit_jax.planning.shapes import Shapes
from antiimit_jax.run_config import RunConfig
from antiimit_jax.scoring.top_words import continuations
from antiimit_jax.scoring.word_probs import word_log_probs
from antiimit_jax.training.loop import KEEP_BFLOAT16, jit_step
from antiimit_jax.training.step import init_state, make_optimizer

Tree = Any
# Measured on the embedded model: Python and its packages, tokenizer, compiled code, tables.
PROGRAM_BYTES = int(0.45 * GIB)
_OTHER = {"float32": "bfloat16", "bfloat16": "float32"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """One phase of a program: what lies in one device's memory at once, in bytes by kind."""

    name: str
    parts: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.parts.values())


def peak(phases: Sequence[Phase]) -> Phase:
    """The phase that needs most."""
    return max(phases, key=lambda phase: phase.total)


def abstract_params(cfg: ModelConfig, dtype: str) -> Tree:
    """Shapes and dtypes of the loaded tree: matrices in `dtype`, norms and biases float32."""

    def init() -> Tree:
        tokens = jnp.zeros((1, 2), jnp.int32)
        return Decoder(cfg).init(jax.random.key(0), sequences(tokens, tokens, tokens))["params"]

    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jax.ShapeDtypeStruct(
            leaf.shape, jnp.dtype(dtype) if is_matrix(path) else jnp.float32
        ),
        jax.eval_shape(init),
    )


def n_bytes(tree: Tree) -> int:
    """Bytes of all arrays or abstract arrays of a tree."""
    return sum(math.prod(np.shape(x)) * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))


def n_params(cfg: ModelConfig) -> int:
    """Parameters; a tied head counts once."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(abstract_params(cfg, "float32")))


class Estimate:
    """Memory of one configuration of one model on one kind of machine."""

    def __init__(self, cfg: ModelConfig, run: RunConfig, shapes: Shapes, kind: str) -> None:
        """`kind` is "tpu", "gpu" or "cpu", where device and host are the same memory."""
        self._cfg, self._run, self._shapes, self._on_cpu = cfg, run, shapes, kind == "cpu"
        run.lora.check(cfg)
        self._adapter = jax.eval_shape(lambda: init_adapter(jax.random.key(0), cfg, run.lora))

    def weights(self, dtype: str) -> int:
        """Bytes of the parameters with matrices in `dtype`."""
        return n_bytes(abstract_params(self._cfg, dtype))

    @functools.cached_property
    def evaluate(self) -> list[Phase]:
        """The phases of `launch.evaluate` with an adapter, suite by suite."""
        run, shapes = self._run, self._shapes
        phases = []

        def phase(name: str, temporaries: int, **more: int) -> None:
            parts = self._loaded() | more | {"temporaries": temporaries}
            phases.append(Phase(name=name, parts=parts))

        adapter = {"adapter": n_bytes(self._adapter)}
        if shapes.words:
            phase("control", self._asked(word_log_probs, shapes.words, run.dtype), **adapter)
        if shapes.variants:
            phase("scoring rules", self._asked(word_log_probs, shapes.variants, run.dtype), **adapter)
            other = _OTHER[run.dtype]
            phase(
                "precision",
                self._asked(word_log_probs, shapes.variants[:1], other, lora=False),
                **{f"weights, cast to {other}": self.weights(other)},
            )
        if shapes.search:
            phase("residual", self._asked(continuations, shapes.search, run.dtype), **adapter)
        if shapes.text is not None:
            phase("drift", self._compared(run.dtype, run.dtype), **adapter)
            if run.drift.rulers:
                changed = {"weights, changed by a ruler": self.weights("float32")}
                if self._on_cpu:  # made as numpy arrays, then copied to the device
                    changed["the same in the making"] = self.weights("float32")
                phase("rulers", self._compared(run.dtype, "float32", lora=False), **changed)
        return phases

    @functools.cached_property
    def finetune(self) -> list[Phase]:
        """The one phase of `launch.finetune`, on the first device."""
        run = self._run
        parts = {f"weights ({run.train.dtype})": self.weights(run.train.dtype)}
        if self._on_cpu:
            parts = {"program": PROGRAM_BYTES, **self._read(), **parts}
        state, step = self._step()
        parts["adapter and Adam's moments"] = n_bytes(state)
        return [Phase(name="finetune", parts=parts | {"temporaries": step})]

    @property
    def study(self) -> list[Phase]:
        """The phases of `launch.study`, which keeps the evaluated weights while it trains."""
        kept = {"weights (kept by the evaluation)": self.weights(self._run.dtype)}
        trained = [Phase(name="training", parts=kept | phase.parts) for phase in self.finetune]
        return [*self.evaluate, *trained]

    def host(self) -> int:
        """Bytes of the host's memory that the weights take while a program runs, at least."""
        return self.weights(self._run.dtype)

    def _loaded(self) -> dict[str, int]:
        weights = {f"weights ({self._run.dtype})": self.weights(self._run.dtype)}
        return {"program": PROGRAM_BYTES, **self._read(), **weights} if self._on_cpu else weights

    def _read(self) -> dict[str, int]:
        return {"weights as read": self.weights(self._run.dtype)}

    def _variables(self, dtype: str, lora: bool) -> dict[str, Tree]:
        adapter = {"lora": self._adapter} if lora else {}
        return {"params": abstract_params(self._cfg, dtype)} | adapter

    def _asked(
        self, fn: Callable, batches: Sequence[Any], dtype: str, *, lora: bool = True
    ) -> int:
        """Most temporaries of a scoring function over batches."""
        decoder = Decoder(self._cfg, lora_scale=self._run.lora.scale)
        stops = jax.ShapeDtypeStruct((self._cfg.vocab_size,), bool)
        arguments = (self._variables(dtype, lora), stops)
        call = functools.partial(fn, decoder)
        return max(self._temporaries(call, arguments, batch) for batch in batches)

    def _compared(self, base: str, other: str, *, lora: bool = True) -> int:
        """Temporaries of the drift suite's comparison."""
        decoder = Decoder(self._cfg, lora_scale=self._run.lora.scale)
        arguments = (self._variables(base, False), self._variables(other, lora))
        call = functools.partial(differences, decoder)
        return self._temporaries(call, arguments, self._shapes.text)

    def _temporaries(self, fn: Callable, arguments: Tree, batch: Tree) -> int:
        """What a data-parallel call sets aside on one device, its batch and result included."""
        parallel = DataParallel(lambda placed, one: fn(*placed, one), jax.devices("cpu")[:1])
        options = None if self._on_cpu else KEEP_BFLOAT16
        analysis = parallel.lower(arguments, batch).compile(options).memory_analysis()
        return analysis.temp_size_in_bytes + analysis.output_size_in_bytes + n_bytes(batch)

    def _step(self) -> tuple[Tree, int]:
        """The training state's shapes and the step's temporaries."""
        run, cfg = self._run, self._cfg
        optimizer = make_optimizer(
            run.train, run.train.steps, train_mask(self._adapter, cfg, run.lora)
        )
        state = jax.eval_shape(lambda adapter: init_state(adapter, optimizer), self._adapter)
        decoder = Decoder(cfg, lora_scale=run.lora.scale, remat=run.train.remat)
        stops = np.arange(cfg.vocab_size) % 2 == 0  # any that XLA cannot fold into a constant
        step = jit_step(decoder, stops, run.train, optimizer)
        batch = self._shapes.train
        lowered = step.lower(state, abstract_params(cfg, run.train.dtype), batch)
        analysis = lowered.compile().memory_analysis()
        fresh = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
        return state, analysis.temp_size_in_bytes + fresh + n_bytes(batch)
