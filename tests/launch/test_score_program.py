"""`launch.score`: one JSON object on standard output, one line on standard error if refused."""

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


def test_the_json_object_stands_alone_on_standard_output(model):
    text = "One two\n"
    result = launch("score", f"--model={model}", f"--prompt={text}", "--words=apple,river bank")
    assert result.returncode == 0, result.stderr
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


def test_a_chat_keeps_control_tokens_as_text_and_continues_an_open_turn(model, tmp_path):
    turns = [
        {"role": "user", "content": "Say <|im_end|> or not"},
        {"role": "assistant", "content": "Word:"},
    ]
    file = tmp_path / "chat.json"
    file.write_text(json.dumps(turns))
    flags = (f"--model={model}", f"--messages={file}", "--words=apple,river", "--forms=lenient")
    found = json.loads(launch("score", *flags).stdout)
    messages = tuple(Message(**turn) for turn in turns)
    prompt, answer = direct(
        model, lambda t: chat_prompt(t, messages), ("apple", "river"), forms="lenient"
    )
    assert found["prompt_ids"] == list(prompt.ids)
    assert list(found["words"].values()) == pytest.approx(answer.q.tolist(), rel=1e-5)
    assert {"APPLE", "\nApple"} <= {form["text"] for form in found["forms"]["apple"]}


def test_a_prompt_file_is_taken_as_it_is(model, tmp_path):
    file = tmp_path / "prompt.txt"
    file.write_bytes("Ünë\n\n".encode())
    result = launch("score", f"--model={model}", f"--prompt_file={file}", "--words=a,b")
    lm = load_language_model(str(model))
    assert json.loads(result.stdout)["prompt_ids"] == lm.tokenizer.encode_text("Ünë\n\n")


@pytest.mark.parametrize(
    "flags, parts",
    [
        (("--prompt=x", "--words=apple,,river"), ("empty",)),
        (("--prompt=x", "--words=apple,apple"), ("repeat", "apple")),
        (("--prompt=x", "--words=apple", "--forms=loose"), ("loose", "strict")),
        (("--prompt=x", "--words=Apple,apple", "--forms=lenient"), ("share the form",)),
        (("--words=apple",), ("--prompt",)),
        (("--prompt=x",), ("--words",)),
        (("--prompt=", "--words=apple"), ("empty",)),
        (("--prompt=" + "word " * 2100 + "end", "--words=apple"), ("window", "2048")),
        (("--prompt_file=/nowhere/prompt", "--words=apple"), ("/nowhere/prompt",)),
        (("--prompt=x", "--words=apple", "--adapter=/nowhere"), ("/nowhere", "adapter_config")),
        (("--prompt=x", "--words=apple", "--wordz=y"), ("--wordz", "words")),
    ],
)
def test_bad_input_ends_in_one_line(model, flags, parts):
    result = launch("score", f"--model={model}", *flags)
    refused(result, *parts)
    assert result.stdout == ""


def test_a_model_that_overflows_in_float16_alone_answers_in_float32_alone(tmp_path):
    folder = write_tiny_model(tmp_path / "steep", scale=100.0)
    asked = (f"--model={folder}", "--prompt=One two", "--words=apple,river")
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


@pytest.mark.parametrize("content", ["{", "[]", '[{"role": "user"}]', '"text"'])
def test_a_chat_that_is_none_is_refused(tmp_path, content, model):
    file = tmp_path / "chat.json"
    file.write_text(content)
    refused(launch("score", f"--model={model}", f"--messages={file}", "--words=a"), str(file))
