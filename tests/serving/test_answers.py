"""POST /v1/rewards: the rewards of the pair, a status for each row, and plain refusals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from helpers.fakes import fake_pair
from helpers.serving import ask, metric, serving

from drsow_plugin import DrSoW, FakeEngine, Problem, TokenPair

ROWS = {
    "prompts": [
        "Name a prime.",
        [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": "It is"}],
        "Name a prime.",
    ],
    "responses": ["Seven.", " said.", "Ça va? 你好 \U0001f600"],
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(max_row=1000, max_body=20_000, queue_rows=8) as url:
        yield url


def test_rewards_are_those_of_the_pair_in_order(url: str) -> None:
    got = ask(f"{url}/v1/rewards", ROWS).body["rewards"]
    expected = DrSoW(**fake_pair()).score(ROWS["prompts"], ROWS["responses"])
    assert [row["status"] for row in got] == ["ok"] * 3
    for row, reward in zip(got, expected, strict=True):
        for name in ("reward", "strong_logprob", "weak_logprob", "strong_tokens", "weak_tokens"):
            assert row[name] == getattr(reward, name)
        assert row["notes"] == [*reward.notes]
        assert row["reward"] == row["strong_logprob"] - row["weak_logprob"]


def test_a_row_that_cannot_be_scored_has_a_status_and_null(url: str) -> None:
    rows = {
        "prompts": ["a", 5, "b", [{"role": "user"}], "c", "d"],
        "responses": ["x", "x", 7, "x", "w " * 400, "\ud83d"],
    }
    got = ask(f"{url}/v1/rewards", rows).body["rewards"]
    kinds = [row["status"].partition(":")[0] for row in got]
    assert kinds == ["ok", *["bad row"] * 3, "too long", "bad row"]
    assert [row["reward"] is None for row in got] == [False, *[True] * 5]
    for row in got[1:]:
        assert row["strong_logprob"] is row["weak_logprob"] is None
        assert row["strong_tokens"] is row["weak_tokens"] is None
    assert metric(url, 'drsow_rows_total{status="too long"}') == 1


def test_a_request_without_rows_is_answered_without_rows(url: str) -> None:
    assert ask(f"{url}/v1/rewards", {"prompts": [], "responses": []}).body == {"rewards": []}


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        (b'{"prompts": ["a"', 400, "The body is not JSON: Expecting"),
        (b"", 400, "The body is not JSON"),
        (b'{"prompts": ["\xff"]}', 400, "The body is not JSON: it is not UTF-8."),
        (b"[" * 15_000, 400, "The body is nested too deeply."),
        (b'{"prompts": [' + b"9" * 5_000 + b"]}", 400, "a number of too many digits"),
        (b'{"prompts": [NaN], "responses": ["a"]}', 400, "JSON: NaN is no number of JSON's."),
        (["a"], 400, "a JSON object, got a list"),
        (b"null", 400, "a JSON object, got null."),
        ({"prompts": 1, "responses": ["a"]}, 400, "'prompts' is a list, got a number."),
        ({"prompts": ["a"]}, 400, "no 'responses'; it has ['prompts']"),
        ({"prompts": "a", "responses": ["a"]}, 400, "'prompts' is a list, got a string"),
        ({"prompts": ["a"], "responses": ["a", "b"]}, 400, "1 prompts and 2 responses"),
        ({"prompts": [], "responses": [], "domain": 1}, 400, "Did you mean 'domains'?"),
        ({"prompts": ["a"], "responses": ["a"], "domains": ["x"]}, 400, "server has no router"),
        ({"prompts": ["a"] * 9, "responses": ["a"] * 9}, 413, "at most 8 rows, got 9"),
        ({"prompts": ["a"], "responses": ["a" * 1000]}, 413, "Row 0 has 1001 characters"),
        ({"prompts": ["a" * 20_000], "responses": [""]}, 413, "at most 20000 bytes"),
    ],
)
def test_a_mistaken_request_is_refused_with_one_plain_error(
    url: str, body: Any, code: int, said: str
) -> None:
    before = metric(url, "drsow_tokens_total")
    answer = ask(f"{url}/v1/rewards", body)
    assert answer.code == code and said in answer.error
    assert metric(url, "drsow_tokens_total") == before


def test_what_is_not_there_is_told_with_what_is(url: str) -> None:
    assert "/v1/rewards" in ask(f"{url}/v1/reward", {}).error
    assert ask(f"{url}/v1/rewards").code == 405


def test_the_domains_of_prompts_reach_the_router() -> None:
    with serving(router="column") as url:
        body = {"prompts": ["a", "b"], "responses": ["x", "y"], "domains": ["safety", None]}
        got = ask(f"{url}/v1/rewards", body).body["rewards"]
        assert [row["domain"] for row in got] == ["safety", None]
        alone = {"prompts": ["a"], "responses": ["x"]}
        assert "goes by the 'domains'" in ask(f"{url}/v1/rewards", alone).error
        for domains, said in (([5], "a text, or null"), ([], "1 prompts and 0 domains")):
            assert said in ask(f"{url}/v1/rewards", {**alone, "domains": domains}).error
        unknown = ask(f"{url}/v1/rewards", {**alone, "domains": ["no such"]}).body["rewards"]
        assert unknown[0]["status"].startswith("bad row") and unknown[0]["reward"] is None


def engine_that_fails(pair: TokenPair) -> Any:
    """Answer by the length of the response: fail over one token, and raise over two."""
    if len(pair.response_ids) == 1:
        return Problem("out of memory", "it is only a test")
    if len(pair.response_ids) == 2:
        return ValueError("a secret text")
    return [math.nan if len(pair.response_ids) == 3 else -1.0] * len(pair.response_ids)


def failing(**options: Any) -> dict[str, Any]:
    strong = FakeEngine(logprobs=engine_that_fails, identity="fails")
    return fake_pair(strong=strong, end_of_turn=False, control_tokens="parse", **options)


@pytest.mark.fault(
    "rows",
    "rows of a request for which memory runs out, or whose log-probs are not finite",
    "null with a status; the others have their rewards",
)
@pytest.mark.fault(
    "memory",
    "memory runs out for a row of a request",
    "null with its status; the others have their rewards",
)
def test_what_an_engine_cannot_score_is_that_rows_status() -> None:
    with serving(**failing()) as url:
        rows = {"prompts": ["a"] * 3, "responses": ["</s>", "</s>" * 3, "</s>" * 4]}
        got = ask(f"{url}/v1/rewards", rows).body["rewards"]
    assert [row["status"].partition(":")[0] for row in got] == ["out of memory", "not finite", "ok"]
    assert [row["reward"] is None for row in got] == [True, True, False]


def test_an_engine_that_raises_is_our_fault_and_quotes_no_text(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with serving(**failing()) as url:
        rows = {"prompts": ["a"], "responses": ["</s>" * 2]}
        answer = ask(f"{url}/v1/rewards", rows)
        assert answer.code == 500 and "ValueError" in answer.error
        rows["responses"] = ["</s>" * 4]
        assert ask(f"{url}/v1/rewards", rows).code == 200
        assert metric(url, 'drsow_requests_total{code="500",path="/v1/rewards"}') == 1
    told = capsys.readouterr().err
    assert (
        "scoring failed: ValueError in " in told
        and "secret" not in told + answer.error + caplog.text
    )


def test_a_fault_in_answering_is_told_without_a_text(
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a secret text")

    monkeypatch.setattr("drsow_plugin.serving.app.read_query", fail)
    with serving() as url:
        answer = ask(f"{url}/v1/rewards", ROWS)
    told = capsys.readouterr().err
    assert answer.code == 500 and "RuntimeError in fail" in told
    assert "secret" not in told + answer.error + caplog.text


def test_what_was_cut_from_a_prompt_is_in_the_notes() -> None:
    with serving(max_length=20, overflow="truncate_prompt") as url:
        body = {"prompts": ["word " * 40], "responses": ["x"]}
        (row,) = ask(f"{url}/v1/rewards", body).body["rewards"]
    assert row["status"] == "ok" and "strong: " in str(row["notes"])
    assert any("prompt tokens cut from the left" in note for note in row["notes"])
