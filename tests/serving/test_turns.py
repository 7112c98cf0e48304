"""Rendered prompts are taken apart as the templates of trainers put them together, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trl
from helpers import tiny
from helpers.preferences import turn

from drsow_plugin.errors import DataError
from drsow_plugin.serving.turns import FORMATS, UNFINISHED, response_of, turns_of

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
USER = {"role": "user", "content": "Name a prime.\n\n  And why: 2 < 3?"}
SYSTEM = {"role": "system", "content": "Be <b>brief</b>."}
TALK = [USER, *turn("It is 7."), {"role": "user", "content": "Ça va? 你好"}]


def rendered(template: str, messages: list[dict[str, str]], start: str, **args: Any) -> str:
    tokenizer = tiny.tokenizer("gpt2_bos")
    tokenizer.bos_token = start
    source = (TEMPLATES / f"{template}.jinja").read_text(encoding="utf-8")
    text = tokenizer.apply_chat_template(
        messages, chat_template=source, tokenize=False, add_generation_prompt=True, **args
    )
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize("messages", [[USER], TALK, [SYSTEM, *TALK]], ids=["one", "talk", "system"])
@pytest.mark.parametrize(
    ("name", "template", "args"),
    [
        ("chatml", "qwen3_instruct_2507", {}),
        ("qwen3", "qwen3", {}),
        ("qwen3", "qwen3", {"enable_thinking": False}),
        ("llama3", "llama3", {}),
        ("llama3.1", "llama3_1", {"date_string": "1 Dec 2026"}),
        ("phi3", "phi3", {}),
    ],
)
def test_what_a_template_rendered_is_taken_apart_into_what_it_was(
    name: str, template: str, args: dict[str, Any], messages: list[dict[str, str]]
) -> None:
    text = rendered(template, messages, FORMATS[name].start or "<s>", **args)
    assert turns_of(text, name) == messages


def test_gemma_calls_the_assistant_a_model() -> None:
    assert turns_of(rendered("gemma", TALK, "<bos>"), "gemma") == TALK


def test_a_default_system_message_is_a_turn_as_the_policy_read_it() -> None:
    turns = turns_of(rendered("qwen2_5", [USER], ""), "chatml")
    assert [turn["role"] for turn in turns] == ["system", "user"]
    assert "Qwen" in turns[0]["content"] and turns[1] == USER


def test_zephyr_closes_turns_with_the_end_of_the_text() -> None:
    text = "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\n"
    assert [turn["content"] for turn in turns_of(text, "zephyr")] == ["Be brief.", "Hi"]


HEAD = "<|im_start|>assistant\n"
HI = "<|im_start|>user\nHi<|im_end|>\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Hi", "no turn begins at 'Hi' (character 0)"),
        ("", "no turn begins at ''"),
        (HI, "no turn begins at ''"),
        (HEAD, "there is no turn before the answer"),
        ("x" + HI + HEAD, "no turn begins at 'x<|im_start|>"),
        (HI + "\n" + HEAD, "no turn begins at '\\n<|im_start|>"),
        (HI[:-12] + HEAD, "last turn is of the user and is not closed"),
        (HI + HEAD + "<think>\n", "the answer is begun already, with '<think>\\n'"),
        (HI.replace("Hi", "a<|im_end|>b") + HEAD, "a turn holds '<|im_end|>' in its text"),
        (HI.replace("Hi", "a<|im_start|>b") + HEAD, "a turn holds '<|im_start|>' in its text"),
        (HI.replace("user", "visitor") + HEAD, "unknown role 'visitor'"),
    ],
)
def test_what_is_not_of_the_format_to_the_last_character_is_refused(text: str, said: str) -> None:
    with pytest.raises(DataError, match="not one of chatml") as error:
        turns_of(text, "chatml")
    assert said in str(error.value) and "--prompts rendered" in str(error.value)


def test_a_prompt_without_the_dates_is_none_of_llama31() -> None:
    text = rendered("llama3", [SYSTEM, USER], "<|begin_of_text|>")
    with pytest.raises(DataError, match="dates that the template writes"):
        turns_of(text, "llama3.1")


def test_the_end_of_a_response_is_taken_off_once_and_one_without_is_noted() -> None:
    assert response_of("Seven.<|im_end|>", "chatml") == ("Seven.", ())
    assert response_of(" Seven.\n<|endoftext|>", "chatml") == (" Seven.\n", ())
    assert response_of("Seven", "chatml") == ("Seven", (UNFINISHED,))


@pytest.mark.parametrize("text", ["a<|im_end|>\n<|im_start|>user\nb", "a<|im_end|>b<|im_end|>"])
def test_a_response_of_more_than_one_turn_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="more than one turn of chatml"):
        response_of(text, "chatml")
