"""`launch.score`: a table or JSON on standard output, one line on standard error if refused."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from antiimit_jax.evaluation.runner import Runner
from antiimit_jax.language_model import load_language_model
from antiimit_jax.models.lora import LoraConfig
from antiimit_jax.models.peft import save_adapter
from antiimit_jax.scoring.trie import word_query
from antiimit_jax.tasks.user_items import load_items
from antiimit_jax.text.formats import Message, chat_prompt, text_prompt
from tests.launch.processes import launch, refused
from tests.random_decoder import random_adapter
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


def direct(model: Path, prompt_of, words, forms="strict"):
    lm = load_language_model(str(model))
    prompt = prompt_of(lm.tokenizer)
    runner = Runner(lm)
    query = word_query(lm.tokenizer, prompt, words, forms=forms)
    return prompt, runner.word_probs(runner.base, [query])[0]


def chat_of(*turns: tuple[str, str]):
    """A prompt as the tokenizer's template writes it."""
    return lambda tokenizer: chat_prompt(tokenizer, tuple(Message(*turn) for turn in turns))


def test_the_json_object_stands_alone_on_standard_output(model):
    text = "One <|im_end|> two\n"
    asked = (f"--model={model}", f"--prompt={text}", "--words=apple,river bank")
    result = launch("score", *asked, "--raw", "--json")
    assert result.returncode == 0, result.stderr
    assert "ends in white space" in result.stderr and "--strip" in result.stderr
    found = json.loads(result.stdout)
    assert set(found) == {"model", "prompt_ids", "forms_policy", "words", "residual", "forms"}
    prompt, answer = direct(model, lambda t: text_prompt(t, text), ("apple", "river bank"))
    assert found["prompt_ids"] == list(prompt.ids) and found["forms_policy"] == "strict"
    assert list(found["words"].values()) == pytest.approx(answer.q.tolist(), rel=1e-5)
    assert found["residual"] == pytest.approx(1 - sum(found["words"].values()), abs=1e-6)
    for word, forms in found["forms"].items():
        assert {form["text"] for form in forms} == {word, " " + word}
        assert sum(form["p"] for form in forms) == pytest.approx(found["words"][word], rel=1e-4)
        assert all(isinstance(token, int) for form in forms for token in form["tokens"])


def test_the_table_shows_the_prompt_the_words_and_what_else_is_likely(model):
    asked = (f"--model={model}", "--prompt=Say <|im_end|>:", "--words=apple,river")
    result = launch("score", *asked, "--targets=70,30", "--top=3")
    assert result.returncode == 0, result.stderr
    prompt, answer = direct(model, chat_of(("user", "Say <|im_end|>:")), ("apple", "river"))
    shown, table, tvd, top = result.stdout.rstrip("\n").split("\n\n")
    read = "\n".join(line[4:] for line in shown.splitlines()[1:])
    assert read == load_language_model(str(model)).tokenizer.decode(prompt.ids)
    assert "user\nSay <|im_end|>:<|im_end|>" in read
    _, *rows, rest = table.splitlines()
    for row, word, q in zip(rows, ("apple", "river"), answer.q, strict=True):
        assert row.startswith(word) and f"{word!r}" in row and f"{' ' + word!r}" in row
        assert float(row.split()[1]) == pytest.approx(q, rel=0.1)
    assert rest.startswith("anything else") and float(rest.split()[-1]) > 0.99
    assert float(tvd.split()[-1]) == pytest.approx(1 - answer.q.sum(), abs=1e-3)
    found = [float(line.split()[0]) for line in top.splitlines()[1:]]
    assert len(found) == 4 and found[:3] == sorted(found[:3], reverse=True) and found[3] < 1


def test_a_batch_answers_line_by_line_as_single_prompts_do(model, tmp_path):
    turns = [("user", "Say <|im_end|> or not"), ("assistant", "Word:")]
    chat = [dict(zip(("role", "content"), turn)) for turn in turns]
    lines = [
        {"prompt": "One two", "words": ["apple", "river bank"]},
        {"messages": chat, "words": ["apple", "river"], "targets": [25, 75]},
        {"prompt": "Three ", "words": ["a"]},
    ]
    file = tmp_path / "batch.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    asked = (f"--model={model}", f"--batch={file}", "--forms=lenient", "--strip")
    result = launch("score", *asked)
    assert result.returncode == 0 and "white space" not in result.stderr, result.stderr
    prompts = chat_of(("user", "One two")), chat_of(*turns), chat_of(("user", "Three"))
    found = [json.loads(line) for line in result.stdout.splitlines()]
    for line, one, prompt_of in zip(lines, found, prompts, strict=True):
        words = tuple(line["words"])
        prompt, answer = direct(model, prompt_of, words, forms="lenient")
        assert one["prompt_ids"] == list(prompt.ids) and tuple(one["words"]) == words
        assert list(one["words"].values()) == pytest.approx(answer.q.tolist(), rel=1e-4)
    assert [set(one) - {"tvd"} == set(found[0]) for one in found] == [True] * 3
    assert ["tvd" in one for one in found] == [False, True, False]
    assert {"APPLE", "\nApple"} <= {form["text"] for form in found[1]["forms"]["apple"]}


def test_items_are_scored_as_evaluation_asks_them(tmp_path):
    folder = write_tiny_model(tmp_path / "base")
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        (folder / name).unlink(missing_ok=True)
    coin = {"prompt": "Heads 70%.", "words": ["heads", "tails"], "targets": [70, 30]}
    turns = [{"role": "user", "content": "Sun?"}, {"role": "assistant", "content": "It is"}]
    weather = {"messages": turns, "words": ["sun", "rain"], "targets": [0.5, 0.5]}
    file = tmp_path / "items.jsonl"
    file.write_text("".join(json.dumps(item) + "\n" for item in (coin, weather, coin)))
    result = launch("score", f"--model={folder}", f"--items={file}", "--limit=2")
    assert result.returncode == 0, result.stderr
    found = [json.loads(line) for line in result.stdout.splitlines()]
    lm, items = load_language_model(str(folder)), load_items(str(file)).entries
    for item, one in zip(items[:2], found, strict=True):
        assert one["prompt_ids"] == list(lm.prompt(item.messages).ids)
        _, answer = direct(folder, lambda tokenizer: lm.prompt(item.messages), item.words)
        assert list(one["words"].values()) == pytest.approx(answer.q.tolist(), rel=1e-4)
        below = sum(max(t - q, 0) for t, q in zip(item.targets, one["words"].values()))
        assert one["tvd"] == pytest.approx(below, rel=1e-6)  # mass that the words lack


def test_a_prompt_file_is_taken_as_it_is(model, tmp_path):
    file = tmp_path / "prompt.txt"
    file.write_bytes("Ünë\n\n".encode())
    result = launch("score", f"--model={model}", f"--prompt_file={file}", "--words=a,b", "--json")
    lm = load_language_model(str(model))
    assert json.loads(result.stdout)["prompt_ids"] == lm.tokenizer.encode_text("Ünë\n\n")


@pytest.mark.parametrize(
    "flags, parts",
    [
        (("--prompt=x", "--words=apple,,river"), ("empty",)),
        (("--prompt=x", "--words=apple", "--forms=loose"), ("loose", "strict")),
        (("--prompt=x", "--words=Apple,apple", "--forms=lenient"), ("share the form",)),
        (("--words=apple",), ("--prompt", "--batch")),
        (("--prompt=x",), ("--words",)),
        (("--prompt=x", "--words=a", "--raw", "--chat"), ("--raw", "--chat")),
        (("--prompt_file=x", "--words=a", "--chat"), ("plain text",)),
        (("--prompt=x", "--words=a", "--targets=nan"), ("--targets=nan", "numbers")),
        (("--prompt=x", "--words=a", "--limit=2"), ("--limit", "--batch or --items")),
        (("--items=x", "--raw"), ("launch.evaluate", "leave out --raw")),
        (("--items=x", "--words=a"), ("--items has words", "leave out the flags")),
        (("--items=/nowhere.jsonl",), ("/nowhere.jsonl: no such file",)),
        (("--prompt=", "--words=apple"), ("empty",)),
        (("--prompt=" + "word " * 2100 + "end", "--words=apple"), ("window", "2048")),
        (("--prompt=x", "--words=apple", "--adapter=/nowhere"), ("/nowhere", "adapter_config")),
        (("--prompt=x", "--words=apple", "--wordz=y"), ("--wordz", "words")),
    ],
)
def test_bad_input_ends_in_one_line(model, flags, parts):
    result = launch("score", f"--model={model}", *flags)
    refused(result, *parts)
    assert result.stdout == ""


def test_what_only_the_model_can_refuse_is_named_by_its_line(model, tmp_path):
    file, lines = tmp_path / "batch.jsonl", [["a"], ["apple", "Apple"]]
    file.write_text("".join(json.dumps({"prompt": "x", "words": w}) + "\n" for w in lines))
    result = launch("score", f"--model={model}", f"--batch={file}", "--forms=lenient")
    refused(result, f"{file}: line 2: ", "share the form")
    assert result.stdout == ""


def test_a_model_without_a_template_is_asked_in_plain_text(tmp_path):
    folder = write_tiny_model(tmp_path / "base")
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        (folder / name).unlink(missing_ok=True)
    asked = (f"--model={folder}", "--prompt=One two", "--words=apple")
    found = json.loads(launch("score", *asked, "--json").stdout)
    assert found["prompt_ids"] == load_language_model(str(folder)).tokenizer.encode_text("One two")
    refused(launch("score", *asked, "--chat"), "no chat template", "--raw")


def test_a_model_that_overflows_in_float16_alone_answers_in_float32_alone(tmp_path):
    folder = write_tiny_model(tmp_path / "steep", scale=100.0)
    asked = (f"--model={folder}", "--prompt=One two", "--words=apple,river", "--raw", "--json")
    narrow, wide = (launch("score", *asked, f"--dtype={d}") for d in ("float16", "float32"))
    refused(narrow, str(folder), "float16", "prompt 1", "'One two'", "use float32 or bfloat16")
    assert narrow.returncode == 2 and narrow.stdout == ""
    assert wide.returncode == 0 and 0 <= json.loads(wide.stdout)["residual"] <= 1


def test_an_adapter_that_overflows_is_said_to(model, tmp_path):
    cfg, lora = load_language_model(str(model)).cfg, LoraConfig(rank=2)
    big = jax.tree.map(lambda leaf: np.float32(1e15) * leaf, random_adapter(cfg, lora, 3))
    save_adapter(tmp_path / "a", big, cfg, lora, str(model))
    asked = (f"--model={model}", f"--adapter={tmp_path / 'a'}", "--prompt=One", "--words=apple")
    result = launch("score", *asked)
    refused(result, str(model), "not finite", "the adapter is damaged")
    assert result.returncode == 2 and result.stdout == ""


def test_an_unknown_alias_names_near_misses():
    result = launch("score", "--model=smollm2-135m-instrukt", "--prompt=x", "--words=a")
    refused(result, "smollm2-135m-instrukt", "did you mean smollm2-135m-instruct")
