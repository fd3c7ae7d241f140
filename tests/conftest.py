"""Every test has eight fake CPU devices and no hub; the real model is loaded once a worker."""

from __future__ import annotations

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
    + " --xla_backend_optimization_level=0"  # tiny models: compiling takes longer than running
)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import gc
import shutil
import tempfile
from pathlib import Path

import jax
import pytest

from antiimit_jax.language_model import LanguageModel, load_language_model

jax.config.update("jax_numpy_rank_promotion", "raise")
EMBEDDED = "smollm2-135m-instruct"
_COMPILED = "COMPILED_BY_TESTS"  # variable: a folder
_MAPS = Path("/proc/self/maps")
_LONG = ("launch", "planning", "scoring", "training")  # rooms with files of minutes
_MANY = 20_000  # maps of memory; Linux ends a process that wants more than 65,530


def pytest_configure(config: pytest.Config) -> None:
    """What one worker compiled no other has to: many tests use the same programs."""
    if not hasattr(config, "workerinput"):  # the process that starts the workers
        os.environ[_COMPILED] = tempfile.mkdtemp(prefix="compiled-")
    jax.config.update("jax_compilation_cache_dir", os.environ[_COMPILED])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(_COMPILED))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files come first, so that at the end no worker waits minutes for the other."""
    items.sort(key=lambda item: item.path.parent.name not in _LONG)


@pytest.fixture(scope="module", autouse=True)
def programs_are_let_go():
    """Compiled programs, each with maps of its own, do not pile up from file to file."""
    yield
    if _MAPS.exists() and _MAPS.read_bytes().count(b"\n") > _MANY:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def smollm2() -> LanguageModel:
    """The embedded model in float32."""
    return load_language_model(EMBEDDED)
