"""A model and what was trained on it, in formats that others read.

    python -m launch.export --adapter=runs/quickstart/adapter --out=merged
    python -m launch.export --model=my/model --adapter=runs/a/adapter --format=peft --out=adapter
    python -m launch.export --model=my.gguf --dtype=bfloat16 --out=opened

hf: the whole model with the adapter merged in, for AutoModelForCausalLM and all that build on it.
peft: the adapter alone, for PeftModel.from_pretrained. Both with a model card; where the adapter
lies in a run's folder it tells the run's settings and figures. The folder appears when it is whole.
"""

import re
from pathlib import Path

from absl import flags

from antiimit_jax.errors import UserError
from antiimit_jax.export.folder import FORMATS, Form, export
from antiimit_jax.language_model import DTYPES
from antiimit_jax.models.weights import find_model
from antiimit_jax.suites import SUITES
from launch import cli

flags.DEFINE_string("model", "smollm2-135m-instruct", "Alias, hub id, folder or .gguf file.")
flags.DEFINE_string("revision", None, "Revision of a model from the hub.")
flags.DEFINE_string("adapter", None, "Folder of a PEFT LoRA adapter.")
flags.DEFINE_string("format", "hf", f"One of {', '.join(FORMATS)}.")
flags.DEFINE_string("out", None, "Folder to write: new or empty, or see --overwrite.")
flags.DEFINE_string(
    "dtype", "auto", f"Of the merged weights, one of {', '.join(DTYPES)}; auto: as they are stored."
)
flags.DEFINE_string("max_shard_size", "2GB", "Of a file of weights, such as 500MB or 5GB.")
flags.DEFINE_bool("overwrite", False, "Replace an earlier export in --out.")


def main() -> None:
    out = Path(cli.needed("out")).expanduser()
    for flag, known in (("format", FORMATS), ("dtype", DTYPES)):
        if (given := cli.FLAGS[flag].value) not in known:
            raise UserError(f"--{flag}={given}: one of {', '.join(known)}")
    if not re.fullmatch(r"[1-9]\d*[KMGT]B", cli.FLAGS.max_shard_size):
        raise UserError(f"--max_shard_size={cli.FLAGS.max_shard_size}: write it as 500MB or 5GB")
    notes = export(
        find_model(cli.FLAGS.model, cli.FLAGS.revision),
        Path(cli.FLAGS.adapter).expanduser() if cli.FLAGS.adapter is not None else None,
        out,
        Form(name=cli.FLAGS.format, dtype=cli.FLAGS.dtype, max_shard_size=cli.FLAGS.max_shard_size),
        suites=SUITES,
        overwrite=cli.FLAGS.overwrite,
        progress=cli.bar,
    )
    for note in notes:
        cli.say(f"note: {note}")
    cli.show(str(out))


if __name__ == "__main__":
    cli.run(main, lambda: "the folder --out appears when it is whole; start it again")
