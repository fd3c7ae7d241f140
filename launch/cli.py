"""What all programs share: flags and configs into dataclasses, one-line errors, progress bars."""

import codecs
import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from antiimit_jax.errors import UserError, first_line, near_misses, printable
from antiimit_jax.evaluation.progress import Progress
from antiimit_jax.files import json_text
from antiimit_jax.gguf_cache import own_folder, user_cache
from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.peft import Adapter, load_adapter
from antiimit_jax.processor import multiplies_bfloat16
from antiimit_jax.run_config import RunConfig, field_names, from_dict, to_dict
from antiimit_jax.suites import SUITES
from launch import hosts, interrupt, meeting
from launch.bars import bar, say, warn_above
from launch.config_help import config_help
from launch.profiling import Profiled
from launch.saved_config import as_config_file

FLAGS = flags.FLAGS
_NOTHING = "nothing was written"
DEFAULT_CONFIG = Path(__file__).resolve().parent.parent / "configs" / "quickstart.py"


def define_config() -> None:
    """--config and all its fields, --model, --revision; `define_mesh`."""
    said = f"A Python file or a run's config.json; by default {DEFAULT_CONFIG}. Any field can be "
    config_flags.DEFINE_config_file("config", None, said + "set as --config.train.steps=50.")
    flags.DEFINE_string("model", None, "Alias, hub id, folder or .gguf file; else the config's.")
    flags.DEFINE_string("revision", None, "Revision of a model from the hub.")
    define_mesh()
    flags.DEFINE_bool("help_config", False, "List all fields of the configuration, and end.")
    show_flags("config", "model", "revision", "help_config")


def define_mesh() -> None:
    """--mesh; --coordinator, --processes and --process_id, which say whose devices there are."""
    said = "Devices: so many rows of so many that split the weights, as data:2,model:4, or auto."
    flags.DEFINE_string("mesh", None, said)
    meeting.define_where()
    show_flags("mesh", "coordinator", "processes", "process_id")


def define_workdir() -> None:
    """--workdir, --overwrite and --profile."""
    flags.DEFINE_string("workdir", None, "Folder of the run: made if absent, continued if not.")
    said = "Replace the results in --workdir; with =all its adapters and checkpoints too."
    flags.DEFINE_enum("overwrite", None, ["results", "all"], said)
    flags.DEFINE_bool("profile", False, "Write JAX traces of some steps and batches as well.")
    show_flags("workdir", "overwrite", "profile")


def define_material() -> None:
    """--words_file and --templates."""
    flags.DEFINE_string("words_file", None, "Your own words, one a line, in place of ours.")
    flags.DEFINE_string("templates", None, "JSONL file of your own phrasings, in place of ours.")
    show_flags("words_file", "templates")


def define_items() -> None:
    """--items, --limit and --skip_bad_items."""
    flags.DEFINE_string("items", None, "JSONL file of your own items, in place of ours.")
    flags.DEFINE_integer("limit", None, "So many items in all, the first ones.", lower_bound=1)
    flags.DEFINE_bool("skip_bad_items", False, "Leave out lines that are no items, and count them.")
    show_flags("items", "limit", "skip_bad_items")


def define_suites() -> None:
    """--suites and --against."""
    known = ", ".join(SUITES)
    flags.DEFINE_list("suites", None, f"What to evaluate, of {known}; else the config's.")
    said = "A second model, or an adapter's folder, to compare with: introspection asks it too."
    flags.DEFINE_string("against", None, said)
    show_flags("suites", "against")


def show_flags(*names: str) -> None:
    """Lists flags that are defined here under --help of the program that runs."""
    for name in names:
        FLAGS.register_key_flag_for_module(sys.argv[0], FLAGS[name])


def run_config(backend: str | None = None, items_for: Sequence[str] = ()) -> RunConfig:
    """The configuration from flags, checked, with dtypes decided for a backend: else for JAX's own.

    Args:
      items_for: groups of fields that --items and --limit set.

    Raises:
      UserError: all that is wrong with it, in one message; or hosts have different ones.
    """
    config = _given_config(items_for)
    hosts.agree({"config": to_dict(config)})
    if backend or config.train.dtype != "auto" or jax.default_backend() != "cpu":
        return config.on(backend or jax.default_backend())
    first, *_ = hosts.exchange(str(multiplies_bfloat16()))
    return config.on("cpu", bfloat16=first == str(True))


def _given_config(items_for: Sequence[str] = ()) -> RunConfig:
    try:
        values = FLAGS.config.to_dict()
    except OSError as error:
        given = FLAGS["config"].config_filename
        reason = str(error).strip().splitlines()[-1].strip()
        raise UserError(f"--config={given}: cannot be read ({reason})") from error
    for flag in ("model", "revision", "mesh", "suites", "against"):
        if flag in FLAGS and FLAGS[flag].value is not None:
            values[flag] = FLAGS[flag].value
    for flag, field in (("words_file", "words_file"), ("templates", "templates_file")):
        if flag in FLAGS and FLAGS[flag].value is not None:
            values[field] = _absolute(FLAGS[flag].value)
    for group in items_for if "items" in FLAGS else ():
        if FLAGS.items is not None:
            values[group]["items_file"] = _absolute(FLAGS.items)
        if FLAGS.limit is not None:
            values[group]["limit"] = FLAGS.limit
        if FLAGS.skip_bad_items:
            values[group]["skip_bad_items"] = True
    return from_dict(values)


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def needed(flag: str) -> str:
    """The value of a flag that has no default.

    Raises:
      UserError: it was not given.
    """
    if FLAGS[flag].value is None:
        raise UserError(f"--{flag} is needed; see --help")
    return FLAGS[flag].value


def read_adapter(folder: str, cfg: ModelConfig, model: str) -> Adapter:
    """An adapter for a model; says so if its file names another base.

    Raises:
      UserError: it cannot be read, or does not fit the model.
    """
    adapter = load_adapter(Path(folder).expanduser(), cfg)
    if not adapter.made_for(model):
        say(f"note: the adapter was made for {adapter.base_model}, not {model}")
    return adapter


def run(main: Callable[[], None], kept: Callable[[], str] = lambda: _NOTHING) -> None:
    """Runs a program: mistakes of the user become one line on standard error and exit code 2.

    Args:
      kept: what a program that is stopped leaves behind, and how it goes on.
    """
    ended = threading.Lock()

    def stop(stopped: interrupt.Stopped) -> None:
        if ended.acquire(blocking=False):
            line = hosts.what_stays(kept) if FLAGS.is_parsed() else _NOTHING
            bar.close()
            hosts.end(stopped.exit_code, "", printable(f"stopped; {line}"))
            os._exit(stopped.exit_code)

    def heard(number: int, code: int, why: str) -> None:
        bar.close()
        stays = f"stopped with process {number}; {hosts.what_stays(kept)}"
        hosts.end_with(code, printable(f"error: process {number}: {why}" if why else stays))

    def begin(argv: Sequence[str]) -> None:
        warn_above()  # absl has set up its own handler
        with hosts.among_others(heard):
            main()

    def tell_defect(error: Exception) -> None:
        if hosts.several():
            why, trace = hosts.why(error), "".join(traceback.format_exception(error))
            hosts.end(1, f"a defect: {why}", trace)

    interrupt.raise_stopped(stop)
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM for itself
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="backslashreplace")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    _keep_compilations()
    logging.set_verbosity(logging.WARNING)
    try:
        app.run(begin, flags_parser=_parse)
    except UserError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno is None:
            tell_defect(error)
            raise
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror} (what was written before is intact)")
    except interrupt.Stopped as stopped:
        stop(stopped)
        signal.pause()  # the other thread was first
    except Exception as error:
        tell_defect(error)
        raise
    finally:
        for number in interrupt.SIGNALS:
            signal.signal(number, signal.SIG_DFL)


def _keep_compilations() -> None:
    """Compiled programs are kept in the user's cache folder; JAX_COMPILATION_CACHE_DIR moves it."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        try:
            jax.config.update("jax_compilation_cache_dir", str(own_folder("xla")))
        except OSError as error:
            logging.warning("compiled programs are not kept: %s", error)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _parse(argv: Sequence[str]) -> list[str]:
    for name in (*argv, os.getcwd(), str(user_cache())):
        if name.encode(errors="ignore").decode() != name:
            raise UserError(f"{name}: is not UTF-8; use a name that is")
    if any(a[:1] == "-" and a.lstrip("-") in ("help", "helpshort", "helpfull", "?") for a in argv):
        print(sys.modules["__main__"].__doc__)
        print(FLAGS.main_module_help())
        sys.exit(0)
    if "config" in FLAGS:
        _refuse_unknown_fields(argv)
        argv = as_config_file(argv)
        if not any(arg.startswith(("--config=", "-config=")) or arg == "--config" for arg in argv):
            argv = [argv[0], f"--config={DEFAULT_CONFIG}", *argv[1:]]
    if "overwrite" in FLAGS and not FLAGS["overwrite"].boolean:
        argv = ["--overwrite=results" if arg == "--overwrite" else arg for arg in argv]
    try:
        program, *rest = FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        hint = near_misses(error.flagname, list(FLAGS))
        raise UserError(f"unknown flag --{error.flagname}{hint}; see --help") from error
    except (SyntaxError, NameError, ImportError) as error:
        raise UserError(f"--config: the file cannot be executed ({error})") from error
    except (flags.Error, ValueError, TypeError, AttributeError, KeyError, OSError) as error:
        raise UserError(first_line(error)) from error
    if rest:
        raise UserError(f"not understood: {' '.join(rest)}; see --help")
    if "help_config" in FLAGS and FLAGS.help_config:
        show(config_help(_given_config()))
        sys.exit(0)
    return [program]


def _refuse_unknown_fields(argv: Sequence[str]) -> None:
    known = [f"config.{field}" for field in field_names()]
    set_here = [arg[2:].split("=")[0] for arg in argv if arg.startswith("--config.")]
    hints = [f"--{name}{near_misses(name, known)}" for name in set_here if name not in known]
    if hints:
        raise UserError(f"unknown field {'; '.join(hints)}")


def _fail(message: str) -> NoReturn:
    line = " ".join(message.split())
    bar.close()
    hosts.end(2, line, printable(f"error: {line}"))
    sys.exit(2)


def show(text: str) -> None:
    """Lines on standard output; what would steer a terminal is shown as an escape."""
    print("\n".join(map(printable, text.rstrip("\n").split("\n"))))


def show_json(values: Any) -> None:
    """One JSON value on standard output, in ASCII where not all of it can be shown there."""
    text = json_text(values, ensure_ascii=False)
    as_it_is = text.isprintable() and codecs.lookup(sys.stdout.encoding).name == "utf-8"
    print(text if as_it_is else json_text(values))


@contextlib.contextmanager
def progress(workdir: Path) -> Iterator[Progress]:
    """Progress bars; with --profile the work they stand for is traced as well."""
    if not FLAGS.profile:
        yield bar
        return
    profiled = Profiled(bar, workdir / "tensorboard", say)
    try:
        yield profiled
    finally:
        profiled.stop()
