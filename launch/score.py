"""How probable is each word after a prompt, exactly.

    python -m launch.score --prompt="Name the capital of France." --words=Paris,London
    python -m launch.score --prompt="The capital of France is" --raw --words=Paris,London --json
    python -m launch.score --prompt="Say one word: river 70%, apple 30%." --words=river,apple \\
        --targets=70,30 --adapter=DIR
    python -m launch.score --messages=chat.json --words=yes,no --forms=lenient
    python -m launch.score --model=my.gguf --batch=prompts.jsonl > answers.jsonl
    python -m launch.score --items=my_items.jsonl --limit=20 > answers.jsonl

A word counts in the tokens that the tokenizer itself writes it in; "anything else" holds the rest.
--prompt is the user's turn for models that are made to chat, and plain text for others; plain text
is read exactly as the tokenizer reads it. A chat is a JSON list of objects with "role" and
"content"; a last turn of role "assistant" is left open and continued. A line of --batch is an
object with "prompt" or "messages", with "words" and maybe "targets"; a line of the answer is what
--json prints. All lines are checked first and scored together. --items takes the file that
`launch.evaluate` takes, and reads each item as it does.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from antiimit_jax.errors import UserError
from antiimit_jax.evaluation.runner import Runner, Variant, WordProbs
from antiimit_jax.language_model import DTYPES, LanguageModel, load_language_model
from antiimit_jax.metrics.control import tvd_res
from antiimit_jax.parallel import AUTO
from antiimit_jax.reporting.identity import identity
from antiimit_jax.scoring.packing import check_window
from antiimit_jax.scoring.trie import FORMS, WordQuery, word_query
from antiimit_jax.text.formats import Prompt
from launch import cli, hosts
from launch.score_requests import Request, read_batch, read_items, read_messages, read_text, shares
from launch.score_table import as_text, shown, top_lines

_NUMBER = re.compile(r"\d{1,9}(\.\d{0,9})?|\.\d{1,9}")
_FILES = {"batch": read_batch, "items": read_items}  # with many requests each
_SOURCES = ("prompt", "prompt_file", "messages", *_FILES)
_DTYPE_HELP = (
    "Of the weights; auto: float32 on a CPU up to 3e9 parameters, else two bytes as stored."
)
flags.DEFINE_string("model", "smollm2-135m-instruct", "Alias, hub id, folder or .gguf file.")
flags.DEFINE_string("revision", None, "Revision of a model from the hub.")
cli.define_mesh()
flags.DEFINE_string("adapter", None, "Folder of a PEFT LoRA adapter.")
flags.DEFINE_string("prompt", None, "The prompt: a chat turn, or plain text for base models.")
flags.DEFINE_string("prompt_file", None, "A file with the prompt, plain text taken as it is.")
flags.DEFINE_string("messages", None, "A JSON file with a chat.")
flags.DEFINE_string("batch", None, "A JSONL file with many prompts and their words.")
flags.DEFINE_string("items", None, "A JSONL file of your own items, as launch.evaluate takes it.")
flags.DEFINE_integer("limit", None, "So many lines of a file, the first ones.", lower_bound=1)
flags.DEFINE_bool("raw", False, "A prompt is plain text for every model.")
flags.DEFINE_bool("chat", False, "A prompt is a chat turn for every model.")
flags.DEFINE_bool("strip", False, "Leave out white space at the end of a prompt.")
flags.DEFINE_list("words", None, "The words, with commas between.")
flags.DEFINE_list("targets", None, "Percentages or shares of the words, to compare with.")
flags.DEFINE_enum("forms", "strict", FORMS, "What counts as saying a word.")
flags.DEFINE_integer("top", 10, "How many of the most probable words to show.", lower_bound=0)
flags.DEFINE_enum("dtype", "auto", DTYPES, _DTYPE_HELP)
flags.DEFINE_bool("json", False, "Print one JSON object in place of the table.")


def main() -> None:
    asked, raw = cli.FLAGS, _raw()
    requests = _requests()
    if asked.strip:
        requests = [request.stripped() for request in requests]
    cli.say(f"loading {asked.model}")
    how = dict(revision=asked.revision, dtype=asked.dtype, mesh=asked.mesh or AUTO)
    lm = load_language_model(asked.model, **how)
    if hosts.several():
        hosts.agree(identity(lm.source, lm.quantize, cli.say))
    cli.say(f"weights in {lm.params['embed']['embedding'].dtype}")
    prompts, queries = zip(*(_read(lm, request, raw) for request in requests))
    runner, variant = _variant(lm)
    many = any(asked[flag].value is not None for flag in _FILES)
    if not many and not asked.json:
        (answer,) = runner.word_probs(variant, queries)
        notes = _notes(runner, variant, requests[0], prompts[0], answer)
        words, text = requests[0].words, lm.tokenizer.decode(prompts[0].ids)
        cli.show(as_text(text, words, queries[0], answer, notes))
        return
    done = cli.bar("prompts", len(requests)) if many else lambda n: None
    answers = runner.word_probs(variant, queries, progress=done)
    for request, query, answer in zip(requests, queries, answers):
        cli.show_json(_as_dict(request, query, answer))


def _raw() -> bool | None:
    """Whether a prompt is plain text; None for what the model is made for."""
    if cli.FLAGS.raw and cli.FLAGS.chat:
        raise UserError("give --raw or --chat, not both")
    if cli.FLAGS.items is not None and (cli.FLAGS.raw or cli.FLAGS.chat):
        raise UserError(
            "--items are read as launch.evaluate reads them: leave out --raw and --chat"
        )
    if cli.FLAGS.messages is not None and cli.FLAGS.raw:
        raise UserError("--messages is a chat: --raw is for --prompt")
    if cli.FLAGS.prompt_file is not None:
        if cli.FLAGS.chat:
            raise UserError("--prompt_file is plain text: --chat is for --prompt")
        return True
    return cli.FLAGS.raw if cli.FLAGS.raw or cli.FLAGS.chat else None


def _requests() -> list[Request]:
    given = [flag for flag in _SOURCES if cli.FLAGS[flag].value is not None]
    if len(given) != 1:
        *names, last = (f"--{flag}" for flag in _SOURCES)
        raise UserError(f"give one of {', '.join(names)} and {last}")
    (source,), asked = given, cli.FLAGS
    if source in _FILES:
        if asked.words is not None or asked.targets is not None:
            raise UserError(f"--{source} has words and targets of its own: leave out the flags")
        return _FILES[source](Path(asked[source].value).expanduser())[: asked.limit]
    if asked.limit is not None:
        raise UserError("--limit counts lines of --batch or --items; leave it out")
    prompt = asked.prompt
    if source == "prompt_file":
        prompt = read_text(Path(asked.prompt_file))
    elif source == "messages":
        prompt = read_messages(Path(asked.messages))
    return [Request(prompt=prompt, words=tuple(cli.needed("words")), targets=_targets())]


def _targets() -> tuple[float, ...]:
    given = cli.FLAGS.targets or ()
    if not all(_NUMBER.fullmatch(one) for one in given):
        raise UserError(f"--targets={','.join(given)}: give numbers such as 70,30")
    return tuple(map(float, given))


def _read(lm: LanguageModel, request: Request, raw: bool | None) -> tuple[Prompt, WordQuery]:
    """A request as the model reads it; says what is odd about it."""
    with request.located():
        prompt = request.read(lm, raw)
        query = word_query(lm.tokenizer, prompt, request.words, forms=cli.FLAGS.forms)
        check_window([query], lm.cfg.max_positions)
    for odd in request.oddities(query, lm.is_raw(raw), cli.FLAGS.forms):
        cli.say(f"note: {odd}")
    return prompt, query


def _variant(lm: LanguageModel) -> tuple[Runner, Variant]:
    runner = Runner(lm)
    if cli.FLAGS.adapter is None:
        return runner, runner.base
    adapter = cli.read_adapter(cli.FLAGS.adapter, lm.cfg, cli.FLAGS.model)
    return runner, runner.adapted(adapter.tree, adapter.scale)


def _notes(
    runner: Runner, variant: Variant, request: Request, prompt: Prompt, answer: WordProbs
) -> list[str]:
    lines = []
    if request.targets:
        pairs = zip(request.words, shares(request.targets, request.words))
        target = ", ".join(f"{word} {share:.4g}" for word, share in pairs)
        lines += ["", f"TVD from {target}: {shown(_tvd(request, answer))}"]
    if cli.FLAGS.top:
        (search,) = runner.top_words(variant, [prompt])
        lines += top_lines(search, cli.FLAGS.top)
    return lines


def _tvd(request: Request, answer: WordProbs) -> float:
    target = np.array([shares(request.targets, request.words)])
    return float(tvd_res(target, answer.q[None])[0])


def _as_dict(request: Request, query: WordQuery, answer: WordProbs) -> dict[str, Any]:
    forms: dict[str, list] = {word: [] for word in request.words}
    for path, mass in zip(query.paths, answer.path_mass):
        form = {"text": path.text, "tokens": list(path.tokens), "p": float(mass)}
        forms[request.words[path.word]].append(form)
    found = {
        "model": cli.FLAGS.model,
        "prompt_ids": list(query.prompt_ids),
        "forms_policy": cli.FLAGS.forms,
        "words": dict(zip(request.words, answer.q.tolist())),
        "residual": answer.residual,
        "forms": forms,
    }
    return found | ({"tvd": _tvd(request, answer)} if request.targets else {})


if __name__ == "__main__":
    cli.run(main)
