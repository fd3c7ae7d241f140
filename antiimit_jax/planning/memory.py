"""What lies in a device's memory at once, phase by phase of `evaluate`, `finetune` and `study`.

Parameters, adapters and optimizer states are counted on abstract shapes; temporaries are what XLA's
CPU compiler sets aside for our real functions on those shapes (`memory_analysis`). A TPU's or GPU's
compiler lays them out differently; weights, which dominate, are the same everywhere.

Every device holds the whole model or, where a row of them shares it, its part; what it needs of
others is among the temporaries, since the programs for all devices are compiled.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.decoder import Decoder
from antiimit_jax.models.lora import LoraConfig, init_adapter, train_mask
from antiimit_jax.models.peft_config import CONFIG_FILE
from antiimit_jax.models.sharding import bytes_of_one, partition
from antiimit_jax.models.weights import abstract_params
from antiimit_jax.parallel import DATA, WHOLE, DataParallel, Rows, make_mesh, mesh_sizes, shapes_on
from antiimit_jax.planning.hardware import GIB
from antiimit_jax.planning.model import find_planned
from antiimit_jax.planning.shapes import Shaper, programs_of, shape_key
from antiimit_jax.run_config import RunConfig
from antiimit_jax.scoring.differences import differences
from antiimit_jax.scoring.generate import Draws, sampled
from antiimit_jax.scoring.lexicon_search import following
from antiimit_jax.scoring.top_words import continuations
from antiimit_jax.scoring.word_probs import next_token_probs, word_log_probs
from antiimit_jax.training.loop import jit_step
from antiimit_jax.training.step import dealt, init_state, make_optimizer, step_mesh
from antiimit_jax.training.terms import make_terms

Tree = Any
# Measured on two small models: Python and its packages, tokenizer, XLA, what it compiled, tables;
# in training also the larger program, checkpoints and TensorBoard.
_EVALUATING, _TRAINING = int(0.65 * GIB), int(0.9 * GIB)


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


def abstract_state(cfg: ModelConfig, run: RunConfig) -> tuple[optax.GradientTransformation, Tree]:
    """The optimizer, and shapes of the training state: adapter, moments, counters."""
    adapter = _adapter(cfg, run.lora)
    optimizer = make_optimizer(run.train, run.train.steps, train_mask(adapter, cfg, run.lora))
    return optimizer, jax.eval_shape(lambda tree: init_state(tree, optimizer), adapter)


def _adapter(cfg: ModelConfig, lora: LoraConfig) -> Tree:
    return jax.eval_shape(lambda: init_adapter(jax.random.key(0), cfg, lora))


def _drawn(decoder: Decoder, variables: Tree, ends: jax.Array, batch: Draws) -> jax.Array:
    """Continuations at some temperature; greedy ones set aside no more."""
    return sampled(decoder, variables, ends, np.float32(1), batch)


def n_bytes(tree: Tree) -> int:
    """Bytes of all arrays or abstract arrays of a tree."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


@functools.cache
def n_params(cfg: ModelConfig) -> int:
    """Parameters; a tied head counts once."""
    return sum(x.size for x in jax.tree.leaves(abstract_params(cfg, "float32")))


def _cast(layers: Tree, cast: Tree) -> Tree:
    """What of the layers has another dtype after a cast, and so lies there twice."""
    return jax.tree.map(lambda old, new: None if new.dtype == old.dtype else new, layers, cast)


class Estimator:
    """Estimates of many configurations of one model on one kind of machine; compiles once each."""

    def __init__(self, cfg: ModelConfig, shaper: Shaper, kind: str, devices: int = 1) -> None:
        """`kind` is "tpu", "gpu" or "cpu", where device and host are the same memory.

        Programs for several `devices` are compiled for as many, which JAX must have here. A mesh
        that is "auto" stands for copies (`advice.with_mesh`).
        """
        self.cfg, self._shaper, self._on_cpu, self._devices = cfg, shaper, kind == "cpu", devices
        self._known: dict[tuple, int] = {}

    @functools.cache
    def weights(self, dtype: str, shards: int = 1, quantize: str = "none") -> int:
        """Bytes of the weights on one of the devices that share them."""
        return bytes_of_one(self.cfg, abstract_params(self.cfg, dtype, quantize), shards)

    def _shards(self, run: RunConfig) -> int:
        return mesh_sizes(run.mesh, self._devices)[1]

    def _row(self, run: RunConfig) -> Mesh:
        """One row of devices, which all others are like."""
        shards = self._shards(run)
        return make_mesh(jax.local_devices()[:shards], shards)

    def evaluate(self, run: RunConfig) -> list[Phase]:
        """The phases of `launch.evaluate` with an adapter: every program of every suite.

        A second model lies beside; what asking it sets aside is taken to be no more.

        Raises:
          UserError: a second model of no known shape.
        """
        shards, phases = self._shards(run), []
        row = self._row(run)
        resident = self._resident(_EVALUATING, run, shards) | self._second(run, shards)
        stops = shapes_on(row, jax.ShapeDtypeStruct((self.cfg.vocab_size,), bool))
        for program in programs_of(run):
            parts = {"adapter": n_bytes(_adapter(self.cfg, run.lora))}
            dtype = {"own": "", "rounded": "bfloat16", "changed": "float32"}[program.weights]
            if dtype:  # beside the stored weights in float32, where the run's own are others
                parts = {f"weights {program.weights}": self.weights(dtype, shards)}
                if (run.dtype, run.quantize) != ("float32", "none"):
                    parts["weights as stored"] = self.weights("float32", shards)
            own = self._variables(run, dtype)
            base = self._variables(run, "float32") if dtype else {"params": own["params"]}
            fn, given = {
                "words": (word_log_probs, (own, stops)),
                "first_tokens": (next_token_probs, (own, stops)),
                "top_words": (continuations, (own, stops)),
                "lexicon_words": (following, (own, stops)),
                "texts": (differences, (base, own)),
                "generate": (_drawn, (own, stops)),
            }[program.kind]
            batches = self._shaper.batches(program)
            parts["temporaries"] = max(self._temporaries(fn, given, b, row) for b in batches)
            phases.append(Phase(name=program.name, parts=resident | parts))
        return phases or [Phase(name="nothing", parts=resident)]

    def finetune(self, run: RunConfig) -> list[Phase]:
        """The one phase of `launch.finetune`, on each device that takes part."""
        shards, dtype = self._shards(run), run.train.dtype
        read = abstract_params(self.cfg, run.dtype, run.quantize)
        layers = abstract_params(self.cfg, dtype, run.quantize)["layers"]
        trained = read | {"layers": layers}  # `training_params`
        state, step = self._step(run, trained)
        if self._on_cpu:
            parts = self._resident(_TRAINING, run, shards)
            if dtype != run.dtype:
                parts[f"layers cast to {dtype}"] = n_bytes(_cast(read["layers"], layers))
        else:
            parts = self._kept(run) if run.train.eval_every else {}
            parts["weights in training"] = bytes_of_one(self.cfg, trained, shards)
        parts |= {"adapter and Adam's moments": state, "temporaries": step}
        return [Phase(name="training", parts=parts)]

    def study(self, run: RunConfig) -> list[Phase]:
        """The phases of `launch.study`, which keeps the evaluated weights while it trains."""
        kept = {} if self._on_cpu else self._kept(run)
        training = [dataclasses.replace(p, parts=kept | p.parts) for p in self.finetune(run)]
        return [*self.evaluate(run), *training]

    def _kept(self, run: RunConfig) -> dict[str, int]:
        """The evaluated weights, which training and its looks at dev_words keep."""
        kept = self.weights(run.dtype, self._shards(run), run.quantize)
        return {"weights kept for evaluating": kept}

    def _resident(self, program: int, run: RunConfig, shards: int) -> dict[str, int]:
        """What lies there throughout: the weights; on a CPU also the program, and what was read.

        A CPU's device takes over whole arrays that were read, so that these exist once.
        """
        shared = f", shared by {shards}" if shards > 1 else ""
        dtype, quantize = run.dtype, run.quantize
        name = dtype if quantize == "none" else f"{quantize}, else {dtype}"
        weights = {f"weights ({name}{shared})": self.weights(dtype, shards, quantize)}
        read = {"program": program, f"weights ({name})": self.weights(dtype, 1, quantize)}
        return read | weights if self._on_cpu else weights

    def _second(self, run: RunConfig, shards: int) -> dict[str, int]:
        """What `run.against` names: the weights of a model, or an adapter."""
        if not run.against:
            return {}
        if (Path(run.against).expanduser() / CONFIG_FILE).is_file():
            return {"second adapter": n_bytes(_adapter(self.cfg, run.lora))}
        cfg = find_planned(run.against, flag="against").cfg
        other = Estimator(cfg, self._shaper, "", self._devices)
        return {"second model": other.weights(run.dtype, shards, run.quantize)}

    def _variables(self, run: RunConfig, dtype: str = "") -> dict[str, Tree]:
        """Of the model as it runs, or of its base with matrices in another dtype; placed."""
        row, quantize = self._row(run), "none" if dtype else run.quantize
        params = abstract_params(self.cfg, dtype or run.dtype, quantize)
        base = {"params": shapes_on(row, params, partition(self.cfg, row, quantize))}
        return base if dtype else base | {"lora": shapes_on(row, _adapter(self.cfg, run.lora))}

    def _temporaries(self, fn: Callable, arguments: Tree, batch: Tree, row: Mesh) -> int:
        """What a call sets aside on one device, its batch and result included."""
        key = (fn.__name__, shape_key((arguments, batch)), row.size)
        if key not in self._known:
            decoder = Decoder(self.cfg)
            program = DataParallel(lambda given, one: fn(decoder, *given, one), Rows(row))
            one_round = jax.tree.map(lambda leaf: np.expand_dims(leaf, 0), batch)
            analysis = program.compiled(arguments, one_round).memory_analysis()
            used = analysis.temp_size_in_bytes + analysis.output_size_in_bytes
            self._known[key] = used + n_bytes(batch)
        return self._known[key]

    def _step(self, run: RunConfig, params: Tree) -> tuple[int, int]:
        """Bytes of the training state, and of what a step sets aside with its batch."""
        cfg, train = self.cfg, run.train
        optimizer, state = abstract_state(cfg, run)
        batch = self._shaper.train(train, run.forms, run.seed)
        rows, shards = mesh_sizes(run.mesh, self._devices)
        devices = jax.local_devices()[: rows * shards]
        mesh = step_mesh(train.accumulate, make_mesh(devices, shards))
        dtypes = run.dtype, run.quantize
        key = ("step", dtypes, train, run.lora, mesh.axis_sizes, shape_key(batch))
        if key not in self._known:
            stops = np.arange(cfg.vocab_size) % 2 == 0  # any that XLA cannot fold into a constant
            asking = dataclasses.replace(self._shaper.asking(run.forms), stops=stops)
            terms = make_terms(train, asking)
            decoder = Decoder(cfg, lora_scale=run.lora.scale, remat=train.remat)
            specs = {name: dealt(microbatches, mesh) for name, microbatches in batch.items()}
            step = jit_step(decoder, terms, optimizer, mesh)
            compiled = step.lower(
                shapes_on(mesh, state),
                shapes_on(mesh, params, partition(cfg, mesh, run.quantize)),
                shapes_on(mesh, batch, specs),
            ).compile()
            analysis = compiled.memory_analysis()
            fresh = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
            own = sum(
                n_bytes(part) // (1 if specs[name] == WHOLE else mesh.shape[DATA])
                for name, part in batch.items()
            )
            self._known[key] = analysis.temp_size_in_bytes + fresh + own
        return n_bytes(state), self._known[key]
