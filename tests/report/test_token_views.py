"""Where a reward comes from: segments of both models' tokens, against sums by hand."""

from __future__ import annotations

import math

import pytest
from helpers import reported, tiny

from drsow_plugin import DrSoW
from drsow_plugin.engines.fake import FakeEngine
from drsow_plugin.report.explain import explained
from drsow_plugin.report.tokens import BEFORE, END, Segment, TokenReader, deciding, segments

SPANS = {"strong": [(0, 2), (2, 3), (3, 6)], "weak": [(0, 3), (3, 4), (4, 6), (6, 6)]}
LOGPROBS = {"strong": [-1.0, -2.0, -4.0], "weak": [-0.5, -0.25, -0.125, -8.0]}


def test_tokens_are_summed_between_the_bounds_that_both_models_have() -> None:
    assert segments(SPANS, LOGPROBS, 6) == [
        Segment(0, 3, -3.0, -0.5, 2, 1),
        Segment(3, 6, -4.0, -0.375, 1, 2),
        Segment(6, 6, 0.0, -8.0, 0, 1),
    ]


def test_what_stands_before_a_response_is_a_segment_of_its_own() -> None:
    spans = {"strong": [(0, 0), (0, 2)], "weak": [(0, 1), (1, 2)]}
    found = segments(spans, {"strong": [-1.0, -2.0], "weak": [-3.0, -4.0]}, 2)
    assert found == [Segment(0, 0, -1.0, 0.0, 1, 0), Segment(0, 2, -2.0, -7.0, 1, 2)]


def test_a_token_that_writes_nothing_is_of_the_segment_where_it_stands() -> None:
    spans = {"strong": [(0, 2), (2, 2), (2, 4), (4, 6)], "weak": [(0, 4), (4, 6)]}
    found = segments(spans, {"strong": [-1.0, -2.0, -4.0, -8.0], "weak": [-0.5, -0.25]}, 6)
    assert found == [Segment(0, 4, -7.0, -0.5, 3, 1), Segment(4, 6, -8.0, -0.25, 1, 1)]


def test_a_response_that_one_model_writes_nothing_for_is_the_other_models() -> None:
    spans = {"strong": [(0, 1), (0, 1), (1, 1)], "weak": [(1, 1), (1, 1)]}
    found = segments(spans, {"strong": [-1.0, -2.0, -4.0], "weak": [-0.5, -0.25]}, 1)
    assert found == [Segment(0, 1, -3.0, 0.0, 2, 0), Segment(1, 1, -4.0, -0.75, 1, 2)]
    drsow = reported.pair_of_tokenizers("gpt2", "sentencepiece")
    (view,) = TokenReader(drsow).read(["Hello?"], ["\u2581"])
    assert view.reward.reward is not None
    assert sum(view.parts()) == pytest.approx(view.reward.reward)


def test_a_response_without_characters_is_its_end() -> None:
    found = segments({"strong": [(0, 0)], "weak": []}, {"strong": [-1.5], "weak": []}, 0)
    assert found == [Segment(0, 0, -1.5, 0.0, 1, 0)]


@pytest.mark.parametrize("weak", tiny.TOKENIZERS)
@pytest.mark.parametrize("text", ["The quick brown fox", "Naïve 你好 👩‍👩‍👧\n\tok ", "", " x"])
def test_the_segments_are_the_response_and_add_up_to_the_reward(weak: str, text: str) -> None:
    drsow = reported.pair_of_tokenizers("gpt2", weak)
    (view,) = TokenReader(drsow).read(["Hello?"], [text])
    (reward,) = drsow.score(["Hello?"], [text])
    assert "".join(text[part.start : part.end] for part in view.segments) == text
    assert reward.reward is not None
    assert sum(view.parts()) == pytest.approx(reward.reward, abs=1e-9)
    assert sum(part.strong for part in view.segments) == pytest.approx(reward.strong_logprob)
    assert sum(part.weak_tokens for part in view.segments) == reward.weak_tokens
    assert view.label(view.segments[-1]) == END


def test_models_with_one_tokenizer_have_one_token_a_segment() -> None:
    drsow = reported.pair_of_tokenizers("gpt2", "gpt2")
    (view,) = TokenReader(drsow).read(["Hello?"], ["The quick brown fox."])
    assert {(part.strong_tokens, part.weak_tokens) for part in view.segments} == {(1, 1)}


def test_with_mean_the_parts_add_up_to_the_mean_reward() -> None:
    drsow = DrSoW(
        FakeEngine(1000),
        FakeEngine(10),
        strong_tokenizer=tiny.tokenizer("gpt2"),
        weak_tokenizer=tiny.tokenizer("bytes"),
        reduction="mean",
    )
    (view,) = TokenReader(drsow).read(["Hello?"], ["The quick brown fox."])
    assert sum(view.parts()) == pytest.approx(-math.log(1000) + math.log(10))


def test_what_decides_is_what_weighs_most_for_or_against() -> None:
    drsow = reported.pair_of_tokenizers()
    one, other = TokenReader(drsow).read(["Hello?"] * 2, ["The quick fox", "A lazy dog"])
    found = deciding([(one, 1), (other, -1)], 100)
    sizes = [abs(value) for _, _, value in found]
    assert sizes == sorted(sizes, reverse=True)
    margin = (one.reward.reward or 0) - (other.reward.reward or 0)
    assert sum(value for _, _, value in found) == pytest.approx(margin)
    assert deciding([(one, 1), (other, -1)], 3) == found[:3]


def test_a_response_that_cannot_be_scored_has_no_segments_and_says_why() -> None:
    drsow = reported.pair_of_tokenizers()
    bad, good = TokenReader(drsow).read(
        [[{"role": "user", "content": 3}], "Hello?"], ["The quick fox", "A lazy dog"]
    )
    assert bad.segments == () and good.segments
    lines = list(explained([bad, good], top=3, tokens=False, color=False))
    assert lines[0].startswith("Response 1: no reward: bad row: ")


def lines_of(color: bool, *texts: str, tokens: bool = True) -> list[str]:
    views = TokenReader(reported.pair_of_tokenizers()).read(["Hello?"] * len(texts), texts)
    return list(explained(views, top=4, tokens=tokens, color=color))


def test_an_explanation_lists_every_token_with_its_three_numbers() -> None:
    lines = lines_of(False, "The quick fox\n\x1b[31m", "A lazy dog")
    assert not any("\x1b" in line for line in lines)
    begin = next(n for n, line in enumerate(lines) if line.split()[:1] == ["token"])
    rows = [line.rsplit(maxsplit=3) for line in lines[begin + 1 : lines.index("")]]
    for _, *both, difference in rows:
        strong, weak = (0.0 if text == "none" else float(text) for text in both)
        assert strong - weak == pytest.approx(float(difference), abs=0.011)
    assert rows[-1][0].strip() == END and any("\\n" in row[0] for row in rows)
    decided = next(n for n, line in enumerate(lines) if " beats " in line)
    assert len(lines) == decided + 2 + 4


def test_a_terminal_with_colours_gets_them_and_each_is_ended_on_its_line() -> None:
    lines = lines_of(True, "The quick\nbrown fox", "A lazy dog", tokens=False)
    painted = [part for line in lines for part in line.split("\n") if "\x1b[" in part]
    assert painted
    for part in painted:
        assert part.count("\x1b[38") == part.count("\x1b[0m")
    assert BEFORE not in "".join(lines)
