"""What lies in a device's memory at once, phase by phase of `evaluate`, `finetune` and `study`.

Parameters, adapters and optimizer states are counted on abstract shapes; temporaries are what XLA's
CPU compiler sets aside for our real functions on those shapes (`memory_analysis`). A TPU's or GPU's
compiler lays them out differently; weights, which dominate, are the same everywhere.

Every device holds the whole model or, where a row of them shares it, its part; what it needs of
others is among the temporaries, since the programs for all devices are compiled.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from antiimit_jax.evaluation.programs import Work, shape_key
from antiimit_jax.models.catalog import CATALOG, embedded_file
from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.decoder import Decoder
from antiimit_jax.models.known import KnownModel, find_known
from antiimit_jax.models.lora import LoraConfig, init_adapter, train_mask
from antiimit_jax.models.peft_config import CONFIG_FILE
from antiimit_jax.models.quantized import check_format
from antiimit_jax.models.sharding import bytes_of_one, partition
from antiimit_jax.models.weights import abstract_params
from antiimit_jax.parallel import DATA, WHOLE, DataParallel, Rows, make_mesh, mesh_sizes, shapes_on
from antiimit_jax.planning.hardware import GIB
from antiimit_jax.run_config import RunConfig
from antiimit_jax.scoring.asks import Program
from antiimit_jax.scoring.differences import differences
from antiimit_jax.scoring.generate import Draws, sampled
from antiimit_jax.scoring.lexicon_search import following
from antiimit_jax.scoring.top_words import continuations
from antiimit_jax.scoring.word_probs import next_token_probs, word_log_probs
from antiimit_jax.text.tokenizer import load_tokenizer
from antiimit_jax.training.batches import Asking
from antiimit_jax.training.loop import jit_step, training_params
from antiimit_jax.training.step import Optimizer, dealt, init_state, make_optimizer, step_mesh
from antiimit_jax.training.terms import Term, make_batch, make_terms
from antiimit_jax.trees import n_bytes

Tree = Any
STAND_IN = "smollm2-135m-instruct"  # whose tokenizer is taken for those that are not here
Phases = dict[str, dict[str, int]]  # name -> bytes by kind
# Measured on two small models: Python and its packages, tokenizer, XLA, what it compiled, tables;
# in training also the larger program, checkpoints and TensorBoard.
_EVALUATING, _TRAINING = int(0.65 * GIB), int(0.9 * GIB)


def _drawn(decoder: Decoder, variables: Tree, ends: jax.Array, batch: Draws) -> jax.Array:
    """Continuations at some temperature; greedy ones set aside no more."""
    return sampled(decoder, variables, ends, np.float32(1), batch)


_FUNCTIONS = {  # what runs for each kind of program
    "words": word_log_probs,
    "first_tokens": next_token_probs,
    "top_words": continuations,
    "lexicon_words": following,
    "texts": differences,
    "generate": _drawn,
}


def step_terms(run: RunConfig, work: Work, stops: np.ndarray | None = None) -> Sequence[Term]:
    """What a training step minimises; `stops`: bool [V], in place of the tokenizer's own."""
    known = dict(tokenizer=work.tokenizer, prompt_format=work.prompt_format, forms=run.forms)
    asking = Asking(**known, stops=work.stops if stops is None else stops)
    return make_terms(run.train, asking, seed=run.seed)


def abstract_adapter(cfg: ModelConfig, lora: LoraConfig) -> Tree:
    """Shapes of an adapter."""
    return jax.eval_shape(lambda: init_adapter(jax.random.key(0), cfg, lora))


def peak(phases: Phases) -> int:
    """Bytes of the phase that needs most."""
    return max(sum(parts.values()) for parts in phases.values())


def estimator_of(model: KnownModel, run: RunConfig, kind: str, devices: int) -> "Estimator":
    """That of a model and its tokenizer.

    Where that is not at hand (nothing is downloaded), the embedded model's stands in: with its
    49,152 tokens it cuts text no coarser than larger vocabularies do, so that shapes come out alike
    or a little larger.

    Raises:
      UserError: an adapter or a quantisation that does not fit the model; a tokenizer that cannot
        be read.
    """
    run.lora.check(model.cfg)
    check_format(model.cfg, run.quantize, model.name)
    tokenizer = load_tokenizer(model.tokenizer or embedded_file(CATALOG[STAND_IN]))
    prompt_format = model.entry.prompt_format if model.entry else "chat"
    return Estimator(model.cfg, Work(tokenizer, prompt_format), kind, devices)


class Estimator:
    """Estimates of many configurations of one model on one kind of machine; compiles once each."""

    def __init__(self, cfg: ModelConfig, work: Work, kind: str, devices: int = 1) -> None:
        """`kind` is "tpu", "gpu" or "cpu", where device and host are the same memory.

        Programs for several `devices` are compiled for as many, which JAX must have here. A mesh
        that is "auto" stands for copies (`advice.with_mesh`).
        """
        self.cfg, self.work, self._on_cpu, self._devices = cfg, work, kind == "cpu", devices
        self._known: dict[Any, int] = {}
        self._batches: dict[Any, dict[str, Tree]] = {}  # of training steps

    @functools.cache
    def weights(self, dtype: str, shards: int = 1, quantize: str = "none") -> int:
        """Bytes of the weights on one of the devices that share them."""
        return bytes_of_one(self.cfg, abstract_params(self.cfg, dtype, quantize), shards)

    def evaluate(self, run: RunConfig) -> Phases:
        """The phases of `launch.evaluate` with an adapter: every program of every suite.

        Raises:
          UserError: a second model of no known shape.
        """
        resident, second = self._resident(_EVALUATING, run), None
        if run.against and (Path(run.against).expanduser() / CONFIG_FILE).is_file():
            resident["second adapter"] = n_bytes(abstract_adapter(self.cfg, run.lora))
        elif run.against:
            second = self._second(run.against)
            resident |= second._resident(0, run, "second model")
        phases, of_second = {}, run.programs(second=True)
        for program in run.programs():
            parts = self._asked(program, run)
            if second and program.weights == "own" and program in of_second:
                most = second._asked(program, run)["temporaries"]
                parts["temporaries"] = max(parts["temporaries"], most)
            phases[program.name] = resident | parts
        return phases or {"nothing": resident}

    @functools.cache
    def _second(self, name: str) -> "Estimator":
        return Estimator(find_known(name, flag="against").cfg, self.work, "", self._devices)

    def finetune(self, run: RunConfig) -> Phases:
        """The one phase of `launch.finetune`, on each device that takes part."""
        read = abstract_params(self.cfg, run.dtype, run.quantize)
        cast = jax.eval_shape(lambda params: training_params(params, run.train.dtype), read)
        if self._on_cpu:  # what has another dtype lies there twice
            pairs = zip(*map(jax.tree.leaves, (read, cast)))
            twice = [new for old, new in pairs if new.dtype != old.dtype]
            parts = self._resident(_TRAINING, run)
            parts |= {f"layers cast to {run.train.dtype}": n_bytes(twice)} if twice else {}
        else:
            parts = self._kept(run) if run.train.eval_every else {}
            parts["weights in training"] = bytes_of_one(self.cfg, cast, self._shards(run))
        adapter = abstract_adapter(self.cfg, run.lora)
        mask = train_mask(adapter, self.cfg, run.lora)
        optimizer = make_optimizer(run.train, run.train.steps, mask)
        state = jax.eval_shape(lambda tree: init_state(tree, optimizer), adapter)
        parts["adapter and Adam's moments"] = n_bytes(state)
        parts["temporaries"] = self._step(run, optimizer, state, cast)
        return {"training": parts}

    def study(self, run: RunConfig) -> Phases:
        """The phases of `launch.study`, which keeps the evaluated weights while it trains."""
        kept = {} if self._on_cpu else self._kept(run)
        training = {name: kept | parts for name, parts in self.finetune(run).items()}
        return self.evaluate(run) | training

    def _kept(self, run: RunConfig) -> dict[str, int]:
        """The evaluated weights, which training and its looks at dev_words keep."""
        kept = self.weights(run.dtype, self._shards(run), run.quantize)
        return {"weights kept for evaluating": kept}

    def _shards(self, run: RunConfig) -> int:
        return mesh_sizes(run.mesh, self._devices)[1]

    def _resident(self, program: int, run: RunConfig, what: str = "weights") -> dict[str, int]:
        """What lies there throughout: the weights; on a CPU also the program, and what was read.

        A CPU's device takes over whole arrays that were read, so that these exist once.
        """
        dtype, quantize, shards = run.dtype, run.quantize, self._shards(run)
        kind = dtype if quantize == "none" else f"{quantize}, else {dtype}"
        shared = f", shared by {shards}" if shards > 1 else ""
        weights = {f"{what} ({kind}{shared})": self.weights(dtype, shards, quantize)}
        read = {"program": program, f"{what} ({kind})": self.weights(dtype, 1, quantize)}
        return read | weights if self._on_cpu else weights

    def _asked(self, program: Program, run: RunConfig) -> dict[str, int]:
        """What asking a program's questions takes beside what lies there throughout."""
        cfg, shards, adapter = self.cfg, self._shards(run), abstract_adapter(self.cfg, run.lora)
        row = make_mesh(jax.local_devices()[:shards], shards)  # which all others are like

        def placed(dtype: str, quantize: str = "none") -> dict[str, Tree]:
            params = abstract_params(cfg, dtype, quantize)
            return {"params": shapes_on(row, params, partition(cfg, row, quantize))}

        if program.weights == "own":
            base, parts = placed(run.dtype, run.quantize), {"adapter": n_bytes(adapter)}
            model = base | {"lora": shapes_on(row, adapter)}
        else:  # beside the stored weights in float32, where the run's own are others
            dtype = {"rounded": "bfloat16", "changed": "float32"}[program.weights]
            base, model = placed("float32"), placed(dtype)
            parts = {f"weights {program.weights}": self.weights(dtype, shards)}
            if (run.dtype, run.quantize) != ("float32", "none"):
                parts["weights as stored"] = self.weights("float32", shards)
        stops = shapes_on(row, jax.ShapeDtypeStruct((cfg.vocab_size,), bool))
        given = (base, model) if program.kind == "texts" else (model, stops)
        fn, temporaries = functools.partial(_FUNCTIONS[program.kind], Decoder(cfg)), []
        compiler = DataParallel(lambda given, batch: fn(*given, batch), Rows(row))
        for batch in self.work.batches(program):
            one_round = jax.tree.map(lambda leaf: np.expand_dims(leaf, 0), batch)
            key = program.kind, shape_key((given, batch)), shards
            compiled = functools.partial(compiler.compiled, given, one_round)
            temporaries.append(self._set_aside(key, compiled, batch))
        return parts | {"temporaries": max(temporaries)}

    def _step(self, run: RunConfig, optimizer: Optimizer, state: Tree, params: Tree) -> int:
        """What a training step sets aside, its batch included."""
        drawn = run.train, run.forms, run.seed
        if drawn not in self._batches:
            self._batches[drawn] = make_batch(step_terms(run, self.work), 0)
        cfg, batch = self.cfg, self._batches[drawn]
        rows, shards = mesh_sizes(run.mesh, self._devices)
        devices = make_mesh(jax.local_devices()[: rows * shards], shards)
        mesh = step_mesh(run.train.accumulate, devices)
        specs = {name: dealt(microbatches, mesh) for name, microbatches in batch.items()}

        def compiled() -> Any:
            stops = np.arange(cfg.vocab_size) % 2 == 0  # any that XLA cannot fold into a constant
            decoder = Decoder(cfg, lora_scale=run.lora.scale, remat=run.train.remat)
            weights = shapes_on(mesh, params, partition(cfg, mesh, run.quantize))
            step = jit_step(decoder, step_terms(run, self.work, stops), optimizer, mesh)
            given = shapes_on(mesh, state), weights, shapes_on(mesh, batch, specs)
            return step.lower(*given).compile()

        key = (run.dtype, run.quantize, run.train, run.lora, mesh.axis_sizes, shape_key(batch))
        split = n_bytes([part for name, part in batch.items() if specs[name] != WHOLE])
        return self._set_aside(key, compiled, batch) - split + split // mesh.shape[DATA]

    def _set_aside(self, key: tuple, compiled: Callable[[], Any], batch: Tree) -> int:
        """Bytes of a call's temporaries, its batch and what is new of its result."""
        if key not in self._known:
            used = compiled().memory_analysis()
            fresh = used.output_size_in_bytes - used.alias_size_in_bytes
            self._known[key] = used.temp_size_in_bytes + fresh + n_bytes(batch)
        return self._known[key]
