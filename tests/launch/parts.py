"""What one process of several works on, and its checkpoint, restored or else saved, in FOLDER.

python -m tests.launch.parts FOLDER ADDRESS PROCESSES NUMBER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jax
import numpy as np

from antiimit_jax import parallel
from antiimit_jax.training.checkpoint import Checkpoints
from antiimit_jax.training.step import TrainState, step_mesh

BATCHES = [np.arange(3, dtype=np.float32) + 10 * number for number in range(9)]
ADAPTER = {"a": np.arange(6, dtype=np.float32).reshape(2, 3) / 7}
LOG = [{"step": 1, "loss": 0.1}]


def state(adapter: dict[str, np.ndarray]) -> TrainState:
    """At step 1, as a restored one is to be like."""
    step, zero = np.array(1, np.int32), np.array(0, np.int32)
    return jax.tree.map(jax.numpy.asarray, TrainState(step, adapter, dict(adapter), zero, zero))


def saved_or_restored(folder: Path) -> str:
    """What became of the checkpoint there."""
    checkpoints = Checkpoints(folder)
    found = checkpoints.restore(state({"a": np.zeros((2, 3), np.float32)}))
    if found is None:
        checkpoints.save(jax.device_get(state(ADAPTER)), LOG)
        checkpoints.close()
        return "saved"
    (restored, log), whole = found, state(ADAPTER)
    same = jax.tree.map(np.array_equal, jax.device_get(restored), jax.device_get(whole))
    return "restored" if jax.tree.all(same) and log == LOG else "other"


def main() -> None:
    folder, address, processes, number = sys.argv[1:]
    jax.distributed.initialize(address, int(processes), int(number))
    rows = parallel.layout_of(parallel.make_mesh(jax.devices()))
    dealt = rows.deal(np.arange(rows.n_batches))
    own = [int(part) for shard in dealt.addressable_shards for part in np.asarray(shard.data)]
    half = parallel.put(np.arange(2.0), parallel.on_mesh(step_mesh(2, rows.mesh), parallel.DEALT))
    program = parallel.DataParallel(lambda placed, batch: (placed * batch).sum(), rows)
    found = program(rows.place(np.float32(2)), BATCHES, np.zeros(3, np.float32))
    told = {
        "keeps": parallel.keeps(),
        "own": own,
        "whole": parallel.whole(dealt).tolist(),
        "of_a_step": [float(x) for x in np.asarray(half.addressable_shards[0].data)],
        "found": [float(x) for x in found],
        "checkpoint": saved_or_restored(Path(folder, number)),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
