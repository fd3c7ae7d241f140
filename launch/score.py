"""How probable is each word after a prompt, exactly: one JSON object on standard output.

    python -m launch.score --prompt="The capital of France is" --words=Paris,London
    python -m launch.score --messages=chat.json --words=apple,river --adapter=DIR
    python -m launch.score --model=my.gguf --prompt_file=prompt.txt --words=yes,no --forms=lenient

A prompt is read exactly as the tokenizer reads that text. A chat is a JSON list of objects with
"role" and "content"; a last turn of role "assistant" is left open and continued.
"""

import json
from pathlib import Path
from typing import Any

from absl import flags

from antiimit_jax.errors import UserError
from antiimit_jax.evaluation.runner import Runner
from antiimit_jax.files import json_text
from antiimit_jax.language_model import DTYPES, LanguageModel, load_language_model
from antiimit_jax.scoring.trie import word_query
from antiimit_jax.text.formats import Message, Prompt, chat_prompt, text_prompt
from launch import cli

_DTYPE_HELP = (
    "Of the weights; auto: float32 on a CPU up to 3e9 parameters, else two bytes as stored."
)
flags.DEFINE_string("model", "smollm2-135m-instruct", "Alias, hub id, folder or .gguf file.")
flags.DEFINE_string("revision", None, "Revision of a model from the hub.")
flags.DEFINE_string("adapter", None, "Folder of a PEFT LoRA adapter.")
flags.DEFINE_string("prompt", None, "The prompt as text.")
flags.DEFINE_string("prompt_file", None, "A file with the prompt, taken as it is.")
flags.DEFINE_string("messages", None, "A JSON file with a chat.")
flags.DEFINE_enum("dtype", "auto", DTYPES, _DTYPE_HELP)
flags.DEFINE_list("words", None, "The words, with commas between.")
flags.DEFINE_string("forms", "strict", "What counts as saying a word: strict or lenient.")


def main() -> None:
    words = cli.needed("words")
    given = [f for f in ("prompt", "prompt_file", "messages") if cli.FLAGS[f].value is not None]
    if len(given) != 1:
        raise UserError("give one of --prompt, --prompt_file and --messages")
    messages = read_messages(Path(cli.FLAGS.messages)) if given == ["messages"] else None
    cli.say(f"loading {cli.FLAGS.model}")
    lm = load_language_model(cli.FLAGS.model, revision=cli.FLAGS.revision, dtype=cli.FLAGS.dtype)
    cli.say(f"weights in {lm.params['embed']['embedding'].dtype}")
    prompt = chat_prompt(lm.tokenizer, messages) if messages else _text(lm)
    query = word_query(lm.tokenizer, prompt, words, forms=cli.FLAGS.forms)
    runner = Runner(lm)
    variant = runner.base
    if cli.FLAGS.adapter is not None:
        adapter = cli.read_adapter(cli.FLAGS.adapter, lm.cfg, cli.FLAGS.model)
        variant = runner.adapted(adapter.tree, adapter.scale)
    (answer,) = runner.word_probs(variant, [query])
    forms: dict[str, list] = {word: [] for word in words}
    for path, mass in zip(query.paths, answer.path_mass):
        form = {"text": path.text, "tokens": list(path.tokens), "p": float(mass)}
        forms[words[path.word]].append(form)
    result = {
        "model": cli.FLAGS.model,
        "prompt_ids": list(prompt.ids),
        "forms_policy": cli.FLAGS.forms,
        "words": {word: float(q) for word, q in zip(words, answer.q)},
        "residual": answer.residual,
        "forms": forms,
    }
    print(json_text(result, ensure_ascii=False))


def _text(lm: LanguageModel) -> Prompt:
    if cli.FLAGS.prompt is not None:
        return text_prompt(lm.tokenizer, cli.FLAGS.prompt)
    file = Path(cli.FLAGS.prompt_file)
    try:
        text = file.read_bytes().decode("utf-8")
    except FileNotFoundError as error:
        raise UserError(f"--prompt_file={file}: no such file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--prompt_file={file}: not UTF-8 ({error.reason})") from error
    return text_prompt(lm.tokenizer, text)


def read_messages(file: Path) -> tuple[Message, ...]:
    """A chat from a JSON file.

    Raises:
      UserError: no such file, not JSON, or not a list of objects with role and content.
    """
    try:
        turns = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"--messages={file}: no such file") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"--messages={file}: not valid JSON ({error})") from error
    if not isinstance(turns, list) or not turns or not all(map(_is_turn, turns)):
        raise UserError(
            f'--messages={file}: must be a list of {{"role": ..., "content": ...}} with texts'
        )
    return tuple(Message(**turn) for turn in turns)


def _is_turn(value: Any) -> bool:
    of_texts = isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
    return of_texts and set(value) == {"role", "content"}


if __name__ == "__main__":
    cli.run(main)
