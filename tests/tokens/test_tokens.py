"""Rendering and tokenising: the cut between prompt and response, BOS, and end of turn."""

from __future__ import annotations

from typing import Any

import pytest
from helpers import tiny
from helpers.rendering import Renderer

from drsow_plugin.errors import ConfigError, TemplateError
from drsow_plugin.tokens.renderer import (
    ALREADY_CLOSED,
    NO_END_OF_TURN,
    REWRITTEN,
    SPLIT_APART,
)
from drsow_plugin.tokens.turns import LEFT_OUT, SYSTEM_MERGED

USER = [{"role": "user", "content": "What is the capital of France?"}]
SYSTEM = {"role": "system", "content": "Write a short answer."}
TURNS = [
    *USER,
    {"role": "assistant", "content": "It is Paris."},
    {"role": "user", "content": "And of Italy?"},
]
RESPONSES = {
    "plain": "It is Paris.",
    "empty": "",
    "blank": "  \n ",
    "newlines_first": "\n\n- one\n- two",
    "indented": "    return a + b\n",
    "trailing_newlines": "It is Paris.\n\n",
    "unicode": "naïve façade 你好 👩‍👩‍👧‍👦 é",
    "thinking": "<think>\nIt is Paris?\n</think>\n\nParis.",
}
END = {
    "chatml": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "mistral": "</s>",
    "gemma": "<end_of_turn>",
    "thinking": "<|im_end|>",
    "bare": "</s>",
}
# A template that writes a BOS needs a tokenizer that has one.
PAIRINGS = [
    (kind, name)
    for kind in tiny.TOKENIZERS
    for name, source in tiny.TEMPLATES.items()
    if kind != "gpt2" or "bos_token" not in source
]


def renderer(kind: str, template: str | None, **options: Any) -> Renderer:
    tokenizer = tiny.tokenizer(kind, template)
    options = {"template_args": tiny.TEMPLATE_ARGS.get(template), **options}
    return Renderer(tokenizer, tiny.TEMPLATES[template] if template else None, **options)


def decode(kind: str, ids: tuple[int, ...]) -> str:
    """Decode ids as they would follow other text, special tokens kept."""
    tokenizer = tiny.tokenizer(kind)
    anchor = tokenizer.convert_tokens_to_ids("[INST]")
    text = tokenizer.decode([anchor, *ids], skip_special_tokens=False)
    return str(text).replace("[INST]", "", 1)


@pytest.mark.parametrize("response", RESPONSES.values(), ids=RESPONSES)
@pytest.mark.parametrize(("kind", "template"), PAIRINGS)
def test_every_response_is_scored_as_given_and_closed_once(
    kind: str, template: str, response: str
) -> None:
    pair = renderer(kind, template).encode(USER, response, "row 0")
    scored = decode(kind, pair.response_ids)
    glue = " " if template == "mistral" else ""
    if kind == "sentencepiece":  # its word-start mark may stand before the first word
        scored, glue = scored.removeprefix(" "), ""
        response = response.removeprefix(" ") if template == "mistral" else response
        scored = scored if not response.startswith(" ") else f" {scored}"
    assert scored.replace(" ", "") == f"{glue}{response}{END[template]}".replace(" ", "")
    assert scored.count(END[template]) == 1
    if kind != "sentencepiece":
        assert scored == f"{glue}{response}{END[template]}"


@pytest.mark.parametrize("template", tiny.TEMPLATES)
@pytest.mark.parametrize("kind", ["gpt2_bos", "bytes", "sentencepiece"])
def test_bos_is_there_exactly_as_often_as_the_template_writes_it(kind: str, template: str) -> None:
    bos = tiny.tokenizer(kind).bos_token_id
    pair = renderer(kind, template).encode(USER, "It is Paris.", "row 0")
    expected = 1 if "bos_token" in tiny.TEMPLATES[template] else 0
    assert (pair.prompt_ids + pair.response_ids).count(bos) == expected


@pytest.mark.parametrize(
    ("kind", "template"), [p for p in PAIRINGS if p[1] not in ("thinking", "bare")]
)
def test_a_usual_row_is_tokenised_just_as_the_whole_conversation(kind: str, template: str) -> None:
    tokenizer = tiny.tokenizer(kind, template)
    answer = {"role": "assistant", "content": "It is Paris."}
    whole = tokenizer.apply_chat_template([*TURNS, answer], tokenize=False)
    pair = renderer(kind, template).encode(TURNS, "It is Paris.", "row 0")
    ids = tokenizer.encode(whole, add_special_tokens=False)
    if SPLIT_APART in pair.notes:
        assert template == "llama3" and kind == "gpt2_bos"  # "\n\n" stands alone in its prompt
    else:
        assert list(pair.prompt_ids + pair.response_ids) == ids[: len(pair)]
        assert tokenizer.decode(ids[len(pair) :]).strip() == ""
        assert REWRITTEN not in pair.notes


def test_the_prompt_of_all_responses_is_the_same_tokens() -> None:
    for kind in tiny.TOKENIZERS:
        for template in (None, "chatml"):
            made = renderer(kind, template)
            prompts = {made.encode(USER, r, "row 0").prompt_ids for r in RESPONSES.values()}
            assert len(prompts) == 1


def test_responses_that_merge_with_the_prompt_are_tokenised_apart() -> None:
    tokenizer = tiny.tokenizer("gpt2_bos")
    tokenizer.add_tokens(["\n\n\n- "])  # what a larger vocabulary has: it spans the boundary
    pair = Renderer(tokenizer, tiny.CHATML).encode(USER, "\n\n- one", "row 0")
    assert SPLIT_APART in pair.notes
    assert tokenizer.decode(pair.response_ids) == "\n\n- one<|im_end|>"
    usual = Renderer(tokenizer, tiny.CHATML).encode(USER, "one", "row 0")
    assert usual.prompt_ids == pair.prompt_ids and SPLIT_APART not in usual.notes


@pytest.mark.parametrize(
    ("template", "response"),
    [
        ("thinking", "\n\nIt is <think></think>Paris."),
        ("thinking", RESPONSES["thinking"]),
        ("llama3", "    return a + b\n"),
        ("gemma", " padded "),
    ],
)
def test_a_template_that_rewrites_the_response_is_noted(template: str, response: str) -> None:
    pair = renderer("bytes", template).encode(USER, response, "row 0")
    assert REWRITTEN in pair.notes
    assert decode("bytes", pair.response_ids) == response + END[template]


@pytest.mark.parametrize("template", ["chatml", "llama3", "mistral", "gemma"])
def test_a_template_that_keeps_the_response_is_not_noted(template: str) -> None:
    assert renderer("bytes", template).encode(TURNS, "It is Paris.", "row 0").notes == ()


@pytest.mark.parametrize("template", ["gemma", "mistral", "bare"])
def test_a_system_message_that_the_template_refuses_or_drops_is_merged(template: str) -> None:
    made = renderer("bytes", template)
    pair = made.encode([SYSTEM, *USER], "It is Paris.", "row 0")
    merged = [{"role": "user", "content": f"{SYSTEM['content']}\n\n{USER[0]['content']}"}]
    assert pair.prompt_ids == made.encode(merged, "It is Paris.", "row 0").prompt_ids
    assert SYSTEM_MERGED in pair.notes
    assert REWRITTEN not in pair.notes


def test_a_system_message_that_the_template_takes_is_not_merged() -> None:
    pair = renderer("bytes", "chatml").encode([SYSTEM, *USER], "It is Paris.", "row 0")
    assert pair.notes == ()
    assert "<|im_start|>system\nWrite" in decode("bytes", pair.prompt_ids)


def test_a_rewritten_earlier_turn_does_not_move_the_system_message() -> None:
    thought = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nIt is Paris."}
    pair = renderer("bytes", "thinking").encode([SYSTEM, USER[0], thought, TURNS[2]], "Rome.", "")
    assert SYSTEM_MERGED not in pair.notes and LEFT_OUT in pair.notes
    assert f"<|im_start|>system\n{SYSTEM['content']}" in decode("bytes", pair.prompt_ids)


def test_an_empty_system_message_adds_nothing() -> None:
    made = renderer("bytes", "gemma")
    pair = made.encode([{"role": "system", "content": ""}, *USER], "It is Paris.", "row 0")
    assert pair.prompt_ids == made.encode(USER, "It is Paris.", "row 0").prompt_ids


def test_a_conversation_that_the_template_refuses_names_the_row() -> None:
    with pytest.raises(TemplateError, match=r"row 7.*roles must alternate"):
        renderer("bytes", "mistral").encode([*USER, *USER], "Paris.", "row 7")


def test_a_system_message_alone_cannot_be_merged() -> None:
    with pytest.raises(TemplateError, match="no user turn"):
        renderer("bytes", "gemma").encode([SYSTEM], "Paris.", "row 0")


def test_an_end_of_turn_that_the_response_brings_is_not_doubled() -> None:
    made = renderer("gpt2_bos", "chatml", control_tokens="parse")
    closed = made.encode(USER, "It is Paris.<|im_end|>", "row 0")
    assert closed.response_ids == made.encode(USER, "It is Paris.", "row 0").response_ids
    assert ALREADY_CLOSED in closed.notes


def test_end_of_turn_can_be_left_out() -> None:
    pair = renderer("bytes", "chatml", end_of_turn=False).encode(USER, "Paris.", "row 0")
    assert decode("bytes", pair.response_ids) == "Paris."


def test_a_template_that_closes_no_turn_gets_the_tokenizers_eos() -> None:
    pair = renderer("bytes", "bare").encode(USER, "Paris.", "row 0")
    assert NO_END_OF_TURN in pair.notes


@pytest.mark.parametrize(
    ("template", "ending"),
    [
        ("chatml", "<|im_start|>assistant\n"),
        ("gemma", "<start_of_turn>model\n"),
        ("mistral", "[/INST] "),
        (None, "France?\n\n"),
    ],
)
@pytest.mark.parametrize("begun", ["It is", "The answer: ", "  ", ""])
def test_a_prompt_that_ends_with_the_assistant_is_continued(
    template: str | None, ending: str, begun: str
) -> None:
    prefill = [*USER, {"role": "assistant", "content": begun}]
    pair = renderer("bytes", template).encode(prefill, " Paris.", "row 0")
    assert decode("bytes", pair.prompt_ids).endswith(f"{ending}{begun}")
    assert decode("bytes", pair.response_ids) == f" Paris.{END[template] if template else ''}"
    assert pair.notes == ()


def test_a_prefill_and_the_rest_are_the_response_in_two_parts() -> None:
    for template in ("mistral", "chatml", None):
        made = renderer("bytes", template)
        prefill = [*USER, {"role": "assistant", "content": "I thi"}]
        parts = made.encode(prefill, "nk so", "row 0")
        whole = made.encode(USER, "I think so", "row 0")
        assert parts.prompt_ids + parts.response_ids == whole.prompt_ids + whole.response_ids


def test_turns_that_the_template_leaves_out_are_noted() -> None:
    tool = {"role": "tool", "content": "42"}
    pair = renderer("bytes", "bare").encode([*TURNS[:2], tool, TURNS[2]], "Rome.", "row 0")
    assert LEFT_OUT in pair.notes
    calls = {"role": "assistant", "tool_calls": [{"name": "f"}]}
    pair = renderer("bytes", None).encode([*USER, calls, tool], "Rome.", "row 0")
    assert LEFT_OUT in pair.notes


def test_a_dropped_system_message_is_noticed_though_a_user_says_the_same() -> None:
    system = {"role": "system", "content": "France"}
    pair = renderer("bytes", "bare").encode([system, *USER], "Paris.", "row 0")
    assert SYSTEM_MERGED in pair.notes
    assert "France\n\nWhat is" in decode("bytes", pair.prompt_ids)


@pytest.mark.parametrize("kind", tiny.TOKENIZERS)
def test_a_plain_lm_reads_bos_text_blank_line(kind: str) -> None:
    tokenizer = tiny.tokenizer(kind)
    pair = renderer(kind, None).encode([SYSTEM, *USER], "It is Paris.", "row 0")
    text = f"{SYSTEM['content']}\n\n{USER[0]['content']}\n\nIt is Paris."
    start = tokenizer.eos_token_id if kind == "gpt2" else tokenizer.bos_token_id
    assert pair.prompt_ids[0] == start
    assert list(pair.prompt_ids + pair.response_ids) == [
        start,
        *tokenizer.encode(text, add_special_tokens=False),
    ]
    assert decode(kind, pair.response_ids).strip() == "It is Paris."


@pytest.mark.parametrize("kind", tiny.TOKENIZERS)
def test_an_empty_prompt_leaves_a_plain_lm_its_start_token(kind: str) -> None:
    pair = renderer(kind, None).encode([{"role": "user", "content": ""}], "Paris.", "row 0")
    assert len(pair.prompt_ids) == 1
    assert decode(kind, pair.response_ids).strip() == "Paris."


def test_a_plain_lm_without_any_start_token_is_refused() -> None:
    tokenizer = tiny.tokenizer("gpt2")
    tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="neither a BOS nor an EOS"):
        Renderer(tokenizer, None)


def test_a_template_that_leaves_the_response_out_is_refused() -> None:
    with pytest.raises(ConfigError, match="leaves the assistant's message out"):
        Renderer(tiny.tokenizer("bytes"), "{{ messages[0]['content'] }}")


def test_a_template_with_a_mistake_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot render a user turn"):
        Renderer(tiny.tokenizer("bytes"), "{{ raise_exception('never') }}")
