"""template=rendered reads a prompt that a template has rendered as that template would be read."""

from __future__ import annotations

import pytest
from helpers import tiny
from helpers.fakes import fake_pair

from drsow_plugin import ConfigError, DrSoW
from drsow_plugin.models.language_model import LanguageModel

TALK = [
    {"role": "user", "content": "Ça va?"},
    {"role": "assistant", "content": "Très bien."},
    {"role": "user", "content": "  Say it."},
]
AS_IT_STANDS = {"template": "rendered", "control_tokens": "parse", "end_of_turn": False}


@pytest.mark.parametrize("kind", tiny.TOKENIZERS)
@pytest.mark.parametrize(
    ("template", "end"),
    [("chatml", "<|im_end|>"), ("llama3", "<|eot_id|>"), ("gemma", "<end_of_turn>")],
)
def test_tokens_are_those_of_the_messages(kind: str, template: str, end: str) -> None:
    if kind == "gpt2" and template != "chatml":
        template, end = "chatml", "<|im_end|>"  # others begin with a BOS, which it has not
    tokenizer = tiny.tokenizer(kind, template)
    text = tokenizer.apply_chat_template(TALK, tokenize=False, add_generation_prompt=True)
    options = {"tokenizer": tokenizer}
    (of_messages,) = DrSoW(**fake_pair(**options)).read([TALK], ["It is said."])
    (of_text,) = DrSoW(**fake_pair(**options, **AS_IT_STANDS)).read([text], ["It is said." + end])
    for side in ("strong", "weak"):
        assert of_text.pairs[side].prompt_ids == of_messages.pairs[side].prompt_ids
        assert of_text.pairs[side].response_ids == of_messages.pairs[side].response_ids


def test_a_response_that_is_not_finished_gets_no_end() -> None:
    pair = fake_pair(**AS_IT_STANDS)
    (row,) = DrSoW(**pair).read(["<|im_start|>user\nHi"], ["He"])
    tokenizer = pair["tokenizer"]
    assert tokenizer.decode(row.pairs["strong"].response_ids) == "He"
    assert tokenizer.decode(row.pairs["strong"].prompt_ids) == "<|im_start|>user\nHi"


@pytest.mark.parametrize("name", ["control_tokens", "end_of_turn"])
def test_options_that_do_not_go_with_it_are_refused(name: str, strong: str) -> None:
    options = {key: value for key, value in AS_IT_STANDS.items() if key != name}
    with pytest.raises(ConfigError, match="control_tokens=parse and end_of_turn=false beside it"):
        DrSoW(**fake_pair(**options))
    with pytest.raises(ConfigError, match="control_tokens=parse and end_of_turn=false beside it"):
        LanguageModel(strong, **options)
    with pytest.raises(ConfigError, match="no place for what a domain adds"):
        DrSoW(**fake_pair(**AS_IT_STANDS, router="keyword"))
