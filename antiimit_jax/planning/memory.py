"""What lies in a device's memory at once, phase by phase of `evaluate`, `finetune` and `study`.

Parameters, adapters and optimizer states are counted on abstract shapes; temporaries are what XLA's
CPU compiler sets aside for our real functions on those shapes (`memory_analysis`). A TPU's or GPU's
compiler lays them out differently; weights, which dominate, are the same everywhere.

Every device holds the whole model or, where a row of them shares it, its part; what it needs of
others is among the temporaries, since the programs for all devices are compiled.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from antiimit_jax.evaluation.programs import FUNCTIONS, Work
from antiimit_jax.models.catalog import CATALOG, embedded_file
from antiimit_jax.models.decoder import Decoder
from antiimit_jax.models.known import KnownModel, find_known
from antiimit_jax.models.lora import init_adapter, train_mask
from antiimit_jax.models.peft_config import CONFIG_FILE
from antiimit_jax.models.sharding import bytes_of_one, partition
from antiimit_jax.models.weights import abstract_params
from antiimit_jax.parallel import DATA, WHOLE, DataParallel, Rows, make_mesh, mesh_sizes, shapes_on
from antiimit_jax.planning.hardware import GIB
from antiimit_jax.run_config import RunConfig, is_read, to_dict
from antiimit_jax.scoring.asks import Program
from antiimit_jax.text.tokenizer import load_tokenizer
from antiimit_jax.training.batches import Asking
from antiimit_jax.training.loop import jit_step, training_params
from antiimit_jax.training.step import dealt, init_state, make_optimizer, step_mesh
from antiimit_jax.training.terms import Term, make_batch, make_terms
from antiimit_jax.trees import n_bytes

Tree = Any
Parts = dict[str, int]  # bytes by kind
Phases = dict[str, Parts]  # by name
STAND_IN = "smollm2-135m-instruct"  # whose tokenizer is taken for those that are not here
# Measured on two small models: Python and its packages, tokenizer, XLA, what it compiled, tables;
# in training also the larger program, checkpoints and TensorBoard.
_EVALUATING, _TRAINING = int(0.65 * GIB), int(0.9 * GIB)


def step_terms(run: RunConfig, work: Work, stops: np.ndarray) -> Sequence[Term]:
    """What a training step minimises; `stops`: bool [V]."""
    known = dict(tokenizer=work.tokenizer, prompt_format=work.prompt_format, forms=run.forms)
    return make_terms(run.train, Asking(**known, stops=stops))


def peak(phases: Phases) -> int:
    """Bytes of the phase that needs most."""
    return max(sum(parts.values()) for parts in phases.values())


class Estimator:
    """Estimates of many configurations of one model on one kind of machine; compiles once each."""

    def __init__(self, model: KnownModel, kind: str, devices: int = 1) -> None:
        """`kind` is "tpu", "gpu" or "cpu", where device and host are the same memory.

        Programs for several `devices` are compiled for as many, which JAX must have here. A mesh
        that is "auto" stands for copies (`advice.fitted`). Where a tokenizer is not at hand
        (nothing is downloaded), the embedded model's stands in: with its 49,152 tokens it cuts text
        no coarser than larger vocabularies do, so that shapes come out alike or a little larger.

        Raises:
          UserError: a tokenizer that cannot be read.
        """
        tokenizer = load_tokenizer(model.tokenizer or embedded_file(CATALOG[STAND_IN]))
        self.work = Work(tokenizer, model.entry.prompt_format if model.entry else "chat")
        self.model, self.cfg = model, model.cfg
        self._on_cpu, self._devices = kind == "cpu", devices

    def weights(self, run: RunConfig) -> int:
        """Bytes of the evaluated weights on one of the devices that share them."""
        params = abstract_params(self.cfg, run.dtype, run.quantize)
        return bytes_of_one(self.cfg, params, self._row(run).size)

    def evaluate(self, run: RunConfig) -> Phases:
        """The phases of `launch.evaluate` with an adapter: every program of every suite.

        Raises:
          UserError: a second model of no known shape.
        """
        resident, models = self._resident(run, _EVALUATING), [self]
        if run.against and (Path(run.against).expanduser() / CONFIG_FILE).is_file():
            resident["second adapter"] = n_bytes(self._adapter(run))
        elif run.against:
            models.append(self._second(run.against))
            resident |= models[1]._resident(run, what="second model")
        phases, of_all = {}, [p for p in run.programs(second=True) if p.weights == "own"]
        for program in run.programs():
            asked = [one._asked(program, run) for one in (models if program in of_all else [self])]
            most = max(parts["temporaries"] for parts in asked)
            phases[program.name] = resident | asked[0] | {"temporaries": most}
        return phases or {"nothing": resident}

    def finetune(self, run: RunConfig) -> Phases:
        """The one phase of `launch.finetune`, on each device that takes part."""
        return {"training": self._training(run, keeps=run.train.eval_every > 0)}

    def study(self, run: RunConfig) -> Phases:
        """The phases of `launch.study`, which keeps the evaluated weights while it trains."""
        return self.evaluate(run) | {"training": self._training(run, keeps=True)}

    @functools.cache
    def _second(self, name: str) -> "Estimator":
        return Estimator(find_known(name, flag="against"), "", self._devices)

    def _adapter(self, run: RunConfig) -> Tree:
        return jax.eval_shape(lambda: init_adapter(jax.random.key(0), self.cfg, run.lora))

    def _row(self, run: RunConfig) -> Mesh:
        """One row of the run's mesh, which all others are like."""
        shards = mesh_sizes(run.mesh, self._devices)[1]
        return make_mesh(jax.local_devices()[:shards], shards)

    def _resident(self, run: RunConfig, program: int = 0, what: str = "weights") -> Parts:
        """What lies there throughout: the evaluated weights and, on a CPU, the program."""
        kind = run.dtype if run.quantize == "none" else f"{run.quantize}, else {run.dtype}"
        shared = f", shared by {shards}" if (shards := self._row(run).size) > 1 else ""
        own = {"program": program} if self._on_cpu else {}
        return own | {f"{what} ({kind}{shared})": self.weights(run)}

    def _asked(self, program: Program, run: RunConfig) -> Parts:
        """What asking a program's questions takes beside what lies there throughout."""
        cfg, row, adapter = self.cfg, self._row(run), self._adapter(run)

        def placed(run: RunConfig) -> dict[str, Tree]:
            params = abstract_params(cfg, run.dtype, run.quantize)
            return {"params": shapes_on(row, params, partition(cfg, row, run.quantize))}

        if program.weights == "own":
            base, parts = placed(run), {"adapter": n_bytes(adapter)}
            model = base | {"lora": shapes_on(row, adapter)}
        else:  # beside the stored weights in float32, where the run's own are others
            stored = dataclasses.replace(run, dtype="float32", quantize="none")
            dtype = {"rounded": "bfloat16", "changed": "float32"}[program.weights]
            asked = dataclasses.replace(stored, dtype=dtype)
            base, model = placed(stored), placed(asked)
            parts = {f"weights {program.weights}": self.weights(asked)}
            parts |= {"weights as stored": self.weights(stored)} if stored != run else {}
        stops = shapes_on(row, jax.ShapeDtypeStruct((cfg.vocab_size,), bool))
        others = {"texts": (base, model), "generate": (model, stops, np.float32(1))}
        given, temporaries = others.get(program.kind, (model, stops)), []
        for batch in self.work.batches(program):
            one_round = jax.tree.map(lambda leaf: np.expand_dims(leaf, 0), batch)
            compiled = self._asker(program.kind, row).compiled(given, one_round)
            temporaries.append(_set_aside(compiled) + n_bytes(batch))
        return parts | {"temporaries": max(temporaries)}

    @functools.cache
    def _asker(self, kind: str, row: Mesh) -> DataParallel:
        """Which compiles once for batches and weights of equal shapes."""
        fn = functools.partial(FUNCTIONS[kind], Decoder(self.cfg))
        return DataParallel(lambda given, batch: fn(*given, batch), Rows(row))

    def _training(self, run: RunConfig, *, keeps: bool) -> Parts:
        """What training takes, which `keeps` the evaluated weights; on a CPU it shares them."""
        read, cast = self._cast(run)
        if self._on_cpu:  # what has another dtype lies there twice
            pairs = zip(*map(jax.tree.leaves, (read, cast)))
            twice = [new for old, new in pairs if new.dtype != old.dtype]
            parts = self._resident(run, _TRAINING)
            parts |= {f"layers cast to {run.train.dtype}": n_bytes(twice)} if twice else {}
        else:
            parts = {"weights kept for evaluating": self.weights(run)} if keeps else {}
            parts["weights in training"] = bytes_of_one(self.cfg, cast, self._row(run).size)
        fields = {name: getattr(run, name) for name in to_dict(run) if is_read(name, ["training"])}
        fields["train"] = dataclasses.replace(run.train, eval_every=0)  # nor does a step look
        return parts | self._step(RunConfig(**fields))

    def _cast(self, run: RunConfig) -> tuple[Tree, Tree]:
        """The weights as they are read, and as a training step takes them."""
        read = abstract_params(self.cfg, run.dtype, run.quantize)
        return read, jax.eval_shape(lambda tree: training_params(tree, run.train.dtype), read)

    @functools.cache
    def _step(self, run: RunConfig) -> Parts:
        """What a training step takes beside the weights, its batch included."""
        cfg, lora, train, adapter = self.cfg, run.lora, run.train, self._adapter(run)
        optimizer = make_optimizer(train, train.steps, train_mask(adapter, cfg, lora))
        state = jax.eval_shape(lambda tree: init_state(tree, optimizer), adapter)
        batch = make_batch(step_terms(run, self.work, self.work.stops), 0)
        rows, shards = mesh_sizes(run.mesh, self._devices)
        devices = make_mesh(jax.local_devices()[: rows * shards], shards)
        mesh = step_mesh(train.accumulate, devices)
        specs = {name: dealt(microbatches, mesh) for name, microbatches in batch.items()}
        stops = np.arange(cfg.vocab_size) % 2 == 0  # any that XLA cannot fold into a constant
        decoder = Decoder(cfg, lora_scale=lora.scale, remat=train.remat)
        step = jit_step(decoder, step_terms(run, self.work, stops), optimizer, mesh)
        weights = shapes_on(mesh, self._cast(run)[1], partition(cfg, mesh, run.quantize))
        given = shapes_on(mesh, state), weights, shapes_on(mesh, batch, specs)
        parts_of = {name: 1 if spec == WHOLE else mesh.shape[DATA] for name, spec in specs.items()}
        own = sum(n_bytes(leaves) // parts_of[name] for name, leaves in batch.items())
        return {
            "adapter and Adam's moments": n_bytes(state),
            "temporaries": _set_aside(step.lower(*given).compile()) + own,
        }


def _set_aside(compiled: Any) -> int:
    """Bytes of a call's temporaries and of what is new of its result."""
    used = compiled.memory_analysis()
    return used.temp_size_in_bytes + used.output_size_in_bytes - used.alias_size_in_bytes
