"""Which characters each token stands for, with tokenizers of all families."""

from __future__ import annotations

import pytest
from helpers import tiny
from tokenizers import normalizers

from drsow_plugin.records import TokenPair
from drsow_plugin.tokens.renderer import Renderer
from drsow_plugin.tokens.spans import Spans

TEXTS = (
    "Paris is it.\n\nNaïve 你好 👩‍👩‍👧 ok",
    " begins with a space",
    "ends with a line break\n",
    "👍",
    "Привет, <|im_end|> мир",
    "a\ufffdb",
    "  two  spaces\t\ttabs ",
)


def tokens(kind: str, template: str | None, text: str) -> tuple[TokenPair, list[tuple[int, int]]]:
    tokenizer = tiny.tokenizer(kind)
    (pair,) = Renderer(tokenizer, template).encode_all([([user("Hi")], text, "row")])
    assert isinstance(pair, TokenPair)
    return pair, Spans(tokenizer).of(pair, text)


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("template", [tiny.CHATML, tiny.MISTRAL, None])
@pytest.mark.parametrize("kind", tiny.TOKENIZERS)
def test_the_spans_are_the_response_without_a_gap(
    kind: str, template: str | None, text: str
) -> None:
    pair, spans = tokens(kind, template, text)
    assert len(spans) == len(pair.response_ids)
    parts = sorted({span for span in spans if span[1] > span[0]})
    assert "".join(text[start:end] for start, end in parts) == text
    assert [end for _, end in parts[:-1]] == [start for start, _ in parts[1:]]
    assert spans == sorted(spans)


def test_a_token_of_letters_has_the_letters_that_it_is_written_with() -> None:
    pair, spans = tokens("gpt2", tiny.CHATML, "The quick brown fox")
    tokenizer = tiny.tokenizer("gpt2")
    written = [tokenizer.decode([token]) for token in pair.response_ids]
    assert written[-1] == "<|im_end|>"
    assert ["The quick brown fox"[a:b] for a, b in spans] == [*written[:-1], ""]


def test_tokens_of_one_character_all_have_it() -> None:
    _, spans = tokens("bytes", None, "a👍b")
    assert spans == [(0, 1), (1, 2), (1, 2), (1, 2), (1, 2), (2, 3)]


def test_what_the_template_writes_around_a_response_has_no_characters() -> None:
    _, spans = tokens("gpt2", tiny.CHATML, "")
    assert spans == [(0, 0)]
    tokenizer = tiny.tokenizer("bytes")
    break_before = TokenPair((5,), tuple(tokenizer("\nok</s>")["input_ids"]))
    assert Spans(tokenizer).of(break_before, "ok") == [(0, 0), (0, 1), (1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (normalizers.Lowercase(), "HELLO World"),
        (normalizers.Replace("  ", " "), "so  much   room"),
        (normalizers.NFC(), "cafe\u0301 again"),
    ],
)
def test_a_tokenizer_that_changes_texts_still_has_all_of_the_response(
    rule: normalizers.Normalizer, text: str
) -> None:
    tokenizer = tiny.tokenizer("gpt2")
    tokenizer.backend_tokenizer.normalizer = rule
    ids = tuple(tokenizer(text)["input_ids"])
    spans = Spans(tokenizer).of(TokenPair((5,), ids), text)
    assert spans[-1][1] == len(text) and spans == sorted(spans)
    assert {at for start, end in spans for at in range(start, end)} == set(range(len(text)))
