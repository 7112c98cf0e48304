"""What a data set is read as, and which two of the candidates make a pair."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections import Counter
from typing import Any

import pytest

from drsow_plugin.annotate.columns import Status, missing_rewards, row_notes
from drsow_plugin.annotate.items import Item, read_ratings, read_rows
from drsow_plugin.annotate.layout import find_layout
from drsow_plugin.annotate.options import LabelConfig, parse_labelling
from drsow_plugin.annotate.selection import CLOSE, FEW, IDENTICAL, TIE, select_pair
from drsow_plugin.errors import ConfigError, DataError
from drsow_plugin.records import Problem, Reward

_ARENA = ("pairs", None, ("conversation_a", "conversation_b"))


@pytest.mark.parametrize(
    ("columns", "kind", "prompt", "responses"),
    [
        (["prompt", "chosen", "rejected", "id"], "pairs", "prompt", ("chosen", "rejected")),
        (["chosen", "rejected"], "pairs", None, ("chosen", "rejected")),
        (["instruction", "completions", "models"], "candidates", "instruction", ("completions",)),
        (["instruction", "generations"], "candidates", "instruction", ("generations",)),
        (["prompt", "responses"], "candidates", "prompt", ("responses",)),
        (["prompt", "response"], "single", "prompt", ("response",)),
        (["prompt", "completion", "label"], "single", "prompt", ("completion",)),
        (["prompt", "chosen", "rejected", "response"], "pairs", "prompt", ("chosen", "rejected")),
        (["conversation_a", "conversation_b", "winner"], *_ARENA),
        (["messages", "id"], "single", None, ("messages",)),
        (["messages", "prompt", "chosen", "rejected"], "pairs", "prompt", ("chosen", "rejected")),
    ],
)
def test_the_columns_say_what_the_data_is(
    columns: list[str], kind: str, prompt: str | None, responses: tuple[str, ...]
) -> None:
    layout = find_layout(columns, LabelConfig())
    assert (layout.kind, layout.prompt, layout.responses) == (kind, prompt, responses)


def test_columns_can_be_named() -> None:
    columns = ["q", "a", "b", "prompt", "responses"]
    named = LabelConfig(prompt_column="q", chosen_column="a", rejected_column="b")
    layout = find_layout(columns, named)
    assert (layout.kind, layout.prompt, layout.responses) == ("pairs", "q", ("a", "b"))
    assert find_layout(columns, LabelConfig(response_column="a")).kind == "single"


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (["text"], {}, "'text' cannot be read as preference data"),
        (["responses"], {}, "no column with the prompt"),
        (["prompt", "chosen", "rejected", "responses"], {}, "kind=pairs or kind=candidates"),
        (["prompt", "chosen", "rejected"], {"kind": "single"}, "as single"),
        (["prompt", "chosen", "rejected"], {"chosen_column": "choosen"}, "Did you mean 'chosen'"),
    ],
)
def test_columns_that_do_not_fit_are_refused(
    columns: list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        find_layout(columns, LabelConfig(**options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"select": "best_vs_wurst"}, "best_vs_worst"),
        ({"min_margin": -1}, "at least 0"),
        ({"min_margin": "nan"}, "at least 0"),
        ({"seed": 1.5}, "whole number"),
        ({"messages": "perhaps"}, "true or false"),
        ({"prefix": ""}, "prefix is a text"),
        ({"relable": "swap"}, "Did you mean 'relabel'"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_labelling({"strong": "a/strong", "weak": "a/weak", **options})


@pytest.mark.parametrize(
    "given",
    [
        ["a", "b"],
        [{"response": "a", "model": "x"}, {"response": "b", "model": "y"}],
        [[{"role": "assistant", "content": "a"}], [{"role": "assistant", "content": "b"}]],
        '["a", "b"]',
        '[{"response": "a", "rating": 1}, {"response": "b"}]',
    ],
)
def test_candidates_come_in_the_shapes_of_the_field(given: Any) -> None:
    layout = find_layout(["prompt", "responses"], LabelConfig())
    item = read_rows({"prompt": ["q"], "responses": [given]}, layout)[0]
    assert item.responses == ("a", "b") and item.problem is None
    assert list(item.prompt) == [{"role": "user", "content": "q"}]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": None, "responses": ["a"]}, "the prompt is missing"),
        ({"prompt": "q", "responses": None}, "the responses are a list"),
        ({"prompt": "q", "responses": "[a, b]"}, "the responses are a list, got str"),
        ({"prompt": "q", "responses": [{"turns": ["a"]}]}, "response 0 is a record without a text"),
        ({"prompt": "q", "responses": [7]}, "response 0 is a text, got int"),
        ({"prompt": "q", "responses": ["\ud800"]}, "response 0: not valid Unicode"),
        ({"prompt": [{"role": "user"}], "responses": ["a"]}, "the content of a message"),
        ({"prompt": "q", "responses": [["a"]]}, "a message is {'role': ..., 'content': ...}"),
        ({"prompt": "q", "responses": [[None]]}, "got None"),
        ({"prompt": [None], "responses": ["a"]}, "message 0: a message is"),
        ({"prompt": 7, "responses": ["a"]}, "a prompt is a string or a list"),
        (
            {"prompt": [{"role": "user", "content": [{"type": "image"}]}], "responses": []},
            "'image'",
        ),
    ],
)
def test_a_row_that_cannot_be_read_says_why(row: dict[str, Any], problem: str) -> None:
    layout = find_layout(["prompt", "responses"], LabelConfig())
    item = read_rows({name: [value] for name, value in row.items()}, layout)[0]
    assert item.problem is not None and problem in item.problem.detail and not item.responses


@pytest.mark.parametrize(
    ("chosen", "rejected", "problem"),
    [
        ([None], ["a"], "a message is"),
        ([None], [None], "a message is"),
        (["a"], ["b", "c", "d"], r"lists of texts \(1 and 3\), as in RewardBench 2 and RM-Bench"),
        (["a", "b", "c"], ["d", "e", "f"], "Make a row of each chosen with each rejected"),
        ([{"role": "assistant", "tool_calls": [{"a": 1}]}], [], "the response has tool calls"),
    ],
)
@pytest.mark.parametrize("prompt", [{"prompt": "q"}, {}])
def test_a_pair_that_cannot_be_read_says_why(
    chosen: Any, rejected: Any, problem: str, prompt: dict[str, Any]
) -> None:
    row = {**prompt, "chosen": chosen, "rejected": rejected}
    item = read_rows({k: [v] for k, v in row.items()}, find_layout(list(row), LabelConfig()))[0]
    said = str(item.problem)
    assert re.search(problem if prompt else f"{problem}|no common beginning", said), said
    assert "cannot be read:" not in said  # known, not only caught


CALLS = [{"type": "function", "function": {"name": "look", "arguments": "{}"}}]
CALLING = [
    {"role": "assistant", "content": "Let me look.", "tool_calls": CALLS},
    {"role": "assistant", "content": "", "tool_calls": CALLS},
    {"role": "assistant", "content": None, "tool_calls": CALLS},
    {"role": "assistant", "content": "Let me look.", "function_call": {"name": "look"}},
    {"from": "gpt", "value": "Let me look.", "tool_calls": CALLS},
]


def in_every_spelling(response: dict[str, Any]) -> list[dict[str, Any]]:
    """Return rows with a response in all places where one may stand."""
    plain, user = [{"role": "assistant", "content": "a"}], {"role": "user", "content": "q"}
    return [
        {"prompt": "q", "chosen": [response], "rejected": plain},
        {"prompt": "q", "chosen": plain, "rejected": [response]},
        {"chosen": [user, response], "rejected": [user, *plain]},
        {"prompt": "q", "responses": ["a", response]},
        {"prompt": "q", "responses": json.dumps([response, "a"])},
        {"prompt": "q", "responses": [plain, [response]]},
        {"prompt": "q", "response": [response]},
        {"prompt": "q", "response": response},
        {"messages": [user, response]},
    ]


@pytest.mark.parametrize("response", CALLING)
def test_a_response_that_calls_tools_is_a_bad_row_in_every_spelling(
    response: dict[str, Any],
) -> None:
    for row in in_every_spelling(response):
        item = read_rows({k: [v] for k, v in row.items()}, find_layout(list(row), LabelConfig()))[0]
        said = str(item.problem)
        assert "the response has tool calls, and only text can be scored. Give all" in said, row
        assert not item.responses


@pytest.mark.parametrize("name", ["reasoning_content", "thinking", "reasoning"])
def test_reasoning_beside_the_text_of_a_response_is_noted(name: str) -> None:
    response = {"role": "assistant", "content": "b", name: "Hm.", "tool_calls": None}
    for row in in_every_spelling(response):
        item = read_rows({k: [v] for k, v in row.items()}, find_layout(list(row), LabelConfig()))[0]
        assert "b" in item.responses and item.problem is None
        note = f"the response has a {name!r} beside its text, which is not scored"
        assert row_notes(item, ()) == [note]
    for row in in_every_spelling({**response, name: "", "tool_calls": []}):
        item = read_rows({k: [v] for k, v in row.items()}, find_layout(list(row), LabelConfig()))[0]
        assert item.problem is None and not item.notes


def test_whatever_a_row_does_the_others_are_read() -> None:
    class Strange(dict[str, Any]):
        def get(self, *_: Any) -> Any:
            raise ZeroDivisionError("strange")

    layout = find_layout(["prompt", "response"], LabelConfig())
    bad, good = read_rows({"prompt": [[Strange()], "q"], "response": ["a", "b"]}, layout)
    assert bad.problem == Problem("bad row", "cannot be read: ZeroDivisionError: strange")
    assert good.problem is None and good.responses == ("b",)


@pytest.mark.parametrize(
    ("row", "ratings"),
    [
        ({"responses": ["a", "b"], "ratings": [1, None]}, [1.0, None]),
        ({"responses": ["a", "b"], "ratings": [5]}, None),
        ({"responses": ["a", "b"], "ratings": ["10", "4.5"]}, [10.0, 4.5]),
        ({"responses": ["a", "b"], "ratings": ["N/A", True]}, [None, None]),
        ({"responses": ["a", "b"], "ratings": [math.nan, 4]}, [None, 4.0]),
        ({"responses": [{"response": "a", "overall_score": 8.5}, "b"]}, [8.5, None]),
        ({"responses": None}, None),
        ({"responses": '["a", "b"]', "ratings": "[2, 1.5]"}, [2.0, 1.5]),
    ],
)
def test_ratings_come_as_a_column_or_in_records(row: dict[str, Any], ratings: Any) -> None:
    layout = find_layout(["prompt", *row], LabelConfig())
    assert read_ratings({"prompt": "q", **row}, layout) == ratings


def choose(texts: list[str | None], rewards: list[float | None], **options: Any) -> Any:
    item = Item(({"role": "user", "content": "q"},), tuple(texts))
    return select_pair(item, rewards, LabelConfig(**options))


def test_best_against_worst_and_median() -> None:
    texts, rewards = list("abcde"), [1.0, 5.0, 3.0, -2.0, 2.0]
    worst = choose(texts, rewards, select="best_vs_worst")
    assert (worst.chosen, worst.rejected) == (1, 3)
    median = choose(texts, rewards, select="best_vs_median")
    assert (median.chosen, median.rejected) == (1, 0)  # of 3, 2, 1, -2 the lower middle one
    assert choose(list("abcd"), [9.0, 3.0, 2.0, 1.0], select="best_vs_median").rejected == 2


def test_best_against_random_takes_each_other_equally_often_and_never_the_best() -> None:
    seen = Counter(choose(list("abcd"), [3.0, 2.0, 1.0, 0.0], seed=s).rejected for s in range(3000))
    assert set(seen) == {1, 2, 3}
    assert all(900 < count < 1100 for count in seen.values())


def test_the_random_choice_depends_on_the_content_alone() -> None:
    first = choose(list("abcdefgh"), [float(n) for n in range(8)])
    assert first == choose(list("abcdefgh"), [float(n) for n in range(8)])
    others = {choose([f"{c}{n}" for c in "abcdefgh"], [*range(8)]).rejected for n in range(40)}
    assert len(others) == 7


@pytest.mark.parametrize("select", ["best_vs_random", "best_vs_worst", "best_vs_median"])
def test_ties_and_identical_responses_are_never_paired(select: str) -> None:
    assert choose(["a", "b"], [1.0, 1.0], select=select).problem == TIE
    assert choose(["a", "a"], [1.0, 1.0], select=select).problem == IDENTICAL
    assert choose(["a"], [1.0], select=select).problem == FEW
    assert choose([], [], select=select).problem == FEW
    assert choose(["a", None, "b"], [1.0, None, None], select=select).problem == FEW
    tied = choose(["a", "b", "c"], [1.0, 1.0, 0.0], select=select)
    assert (tied.chosen, tied.rejected) == (0, 2)
    twice = choose(["a", "b", "a"], [1.0, 0.0, 1.0 + 1e-7], select=select)
    assert (twice.chosen, twice.rejected) == (0, 1)  # rounding does not set a text over itself


def test_a_minimum_margin_leaves_out_what_is_too_close() -> None:
    texts, rewards = list("abc"), [3.0, 2.5, 0.0]
    assert {choose(texts, rewards, min_margin=1.0, seed=s).rejected for s in range(50)} == {2}
    assert choose(texts, rewards, min_margin=4.0).problem == CLOSE


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (Status(), "ok"),
        (Status(Problem("tie", "")), "tie"),
        (
            Status(Problem("tie", "bad row: response 1: missing")),
            "tie: bad row: response 1: missing",
        ),
        (Status(Problem("too long", "chosen: weak: 9: 8")), "too long: chosen: weak: 9: 8"),
        (Status(Problem("bad row", "a: b"), is_partial=True), "partial: bad row: a: b"),
    ],
)
def test_a_status_is_read_again_from_its_text(status: Status, text: str) -> None:
    assert str(status) == text
    assert Status.parse(text) == status
    assert (status.failure is None) == text.startswith(("ok", "partial"))


def test_missing_rewards_are_one_problem_of_the_kind_of_the_first() -> None:
    fine = Reward(1.0, -1.0, -2.0, 1, 1)
    long = (Problem("too long", "9 tokens", "strong"), Problem("too long", "8 tokens", "weak"))
    rewards = {"a": fine, "b": dataclasses.replace(fine, reward=None, problems=long), "c": None}
    text = "too long: b: strong: 9 tokens; too long: weak: 8 tokens; c: missing"
    assert str(missing_rewards(rewards)) == text
    assert missing_rewards({"a": fine}) is None
