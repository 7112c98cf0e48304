"""Engines that are no model of transformers: the stand-in for tests, under the whole of a pair."""

from __future__ import annotations

import math
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny
from helpers.engines import logprobs

from drsow_plugin import ConfigError, DataError, DrSoW, EngineError, FakeEngine
from drsow_plugin.errors import NonFiniteError
from drsow_plugin.records import Problem, TokenPair

PAIRS = [TokenPair((1, 2), (3, 4, 5)), TokenPair((1,), (2,)), TokenPair((1, 2), (3, 4, 5))]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny.tokenizer("gpt2_bos").save_pretrained(folder)
    return str(folder)


def pair(tokenizer: str, strong: FakeEngine, weak: FakeEngine, **options: object) -> DrSoW:
    return DrSoW(strong, weak, tokenizer=tokenizer, template="none", **options)  # type: ignore[arg-type]


def test_a_uniform_engine_gives_minus_n_log_v() -> None:
    assert [found.total for found in logprobs(FakeEngine(1000), PAIRS)] == [
        pytest.approx(-n * math.log(1000)) for n in (3, 1, 3)
    ]


def test_the_same_pair_is_asked_for_once() -> None:
    engine = FakeEngine()
    logprobs(engine, PAIRS)
    assert engine.calls == [PAIRS[:2]]


def test_the_reward_of_two_uniform_engines_is_known(tokenizer: str) -> None:
    drsow = pair(tokenizer, FakeEngine(10), FakeEngine(1000))
    reward = drsow.score(["A question?"], ["It is Paris."])[0]
    assert reward.reward == pytest.approx(reward.strong_tokens * math.log(100))


def test_a_pair_that_fails_takes_no_other_with_it(tokenizer: str) -> None:
    def answer(pair: TokenPair) -> Problem | list[float]:
        if len(pair.response_ids) > 2:
            return Problem("out of memory", "too long for this engine")
        return [-1.0] * len(pair.response_ids)

    drsow = pair(tokenizer, FakeEngine(logprobs=answer), FakeEngine())
    long, short = drsow.score(["q", "q"], ["a longer response", "a"], on_error="null")
    assert long.reward is None and short.reward is not None
    assert long.reason == "out of memory: strong: too long for this engine"
    with pytest.raises(EngineError, match="row 0: out of memory: strong: too long for this"):
        drsow.score(["q", "q"], ["a longer response", "a"])


def test_a_log_prob_that_is_not_finite_names_row_and_model(tokenizer: str) -> None:
    weak = FakeEngine(logprobs=lambda pair: [math.nan] * len(pair.response_ids))
    drsow = pair(tokenizer, FakeEngine(), weak)
    with pytest.raises(NonFiniteError, match="row 0: under the weak model"):
        drsow.score(["q"], ["a"])
    assert drsow.score(["q"], ["a"], on_error="null")[0].reason == (
        "not finite: weak: the log-prob came out as nan"
    )


@pytest.mark.parametrize(
    ("answer", "said"),
    [(EngineError("The server is gone."), "server is gone"), ([-1.0], "1 log-probs for 3 tokens")],
)
def test_an_engine_that_fails_is_an_error(answer: list[float] | Exception, said: str) -> None:
    with pytest.raises(EngineError, match=said):
        logprobs(FakeEngine(logprobs=lambda _pair: answer), PAIRS)


def test_an_engine_that_leaves_pairs_out_is_an_error() -> None:
    class Lazy(FakeEngine):
        def logprobs(self, pairs):  # type: ignore[no-untyped-def]
            yield from [*super().logprobs(pairs)][1:]

    with pytest.raises(EngineError, match="did not answer for 2 of 3"):
        logprobs(Lazy(), PAIRS)


@pytest.mark.parametrize("numbers", [[0, 1, 1], [0, 1, 2], [0, -1]])
def test_an_engine_that_answers_for_another_pair_is_an_error(numbers: list[int]) -> None:
    class Confused(FakeEngine):
        def logprobs(self, pairs):  # type: ignore[no-untyped-def]
            return [(number, [-1.0] * len(pairs[number % 2].response_ids)) for number in numbers]

    with pytest.raises(EngineError, match=f"answered for pair {numbers[-1]}"):
        logprobs(Confused(), PAIRS)


def test_answers_may_be_arrays_in_a_list() -> None:
    class Arrays(FakeEngine):
        def logprobs(self, pairs):  # type: ignore[no-untyped-def]
            answers = [
                (i, np.full(len(p.response_ids), -1.0, "float32")) for i, p in enumerate(pairs)
            ]
            return answers[::-1]

    found = logprobs(Arrays(), PAIRS)
    assert [logprob.total for logprob in found] == [-3.0, -1.0, -3.0]
    assert all(type(value) is float for value in found[0].token_logprobs or ())


@pytest.mark.parametrize(
    "answers",
    [
        *(None, 7, "text", [[-1.0]], [None], [(0.0, [-1.0] * 3)], {0: [-1.0] * 3}),
        *([(0, item)] for item in (None, "111", [None] * 3, [True] * 3, ["-1"] * 3, {0: -1.0})),
        [(0, np.full((3, 1), -1.0))],
        [(0, [0.5, 0.5, 0.5])],
    ],
)
def test_an_answer_that_is_no_log_probs_is_an_error_of_the_engine(answers: object) -> None:
    class Odd(FakeEngine):
        def logprobs(self, pairs):  # type: ignore[no-untyped-def]
            return answers

    with pytest.raises(EngineError, match=r"^the engine"):
        logprobs(Odd(), PAIRS)


def test_an_engine_cannot_reorder_what_it_was_asked() -> None:
    class Sorting(FakeEngine):
        def logprobs(self, pairs):  # type: ignore[no-untyped-def]
            pairs.sort(key=len)
            return super().logprobs(pairs)

    with pytest.raises(AttributeError, match="sort"):
        logprobs(Sorting(), PAIRS)


def test_what_an_engine_says_of_another_kind_is_tried_again(tokenizer: str, tmp_path: Path) -> None:
    import datasets

    from drsow_plugin import Annotator

    state = {"is_up": False}

    def answer(pair: TokenPair) -> Problem | list[float]:
        if not state["is_up"]:
            return Problem("unreachable", "HTTP 503")
        return [-1.0] * len(pair.response_ids)

    rows = datasets.Dataset.from_list([{"prompt": "q", "chosen": "a", "rejected": "b"}])
    strong, weak = FakeEngine(logprobs=answer, identity="a server"), FakeEngine(7)
    annotator = Annotator(strong, weak, tokenizer=tokenizer, template="none")
    run = partial(annotator.run, rows, cache_dir=str(tmp_path), keep_unusable=True)
    assert run()[0]["drsow_status"].startswith("unreachable: chosen: strong: HTTP 503")
    state["is_up"] = True
    assert run()[0]["drsow_status"] == "ok"


def test_a_stand_in_that_answers_what_it_is_told_has_no_identity_of_its_own(
    tokenizer: str,
) -> None:
    told = FakeEngine(logprobs=lambda pair: [-1.0] * len(pair.response_ids))
    with pytest.raises(ConfigError, match="no identity"):
        _ = pair(tokenizer, told, FakeEngine(7)).fingerprint


def test_an_engine_is_identified_by_what_it_says(tokenizer: str) -> None:
    fingerprints = {
        pair(tokenizer, FakeEngine(size), FakeEngine(7)).fingerprint for size in (10, 11, 10)
    }
    assert len(fingerprints) == 2
    nameless = FakeEngine(10)
    nameless.identity = ""
    with pytest.raises(ConfigError, match=r"this engine has no identity.*'identity'"):
        _ = pair(tokenizer, nameless, FakeEngine(7)).fingerprint


def test_what_does_not_go_with_an_engine_is_said(tokenizer: str) -> None:
    with pytest.raises(ConfigError, match="which has no tokenizer"):
        DrSoW(FakeEngine(), FakeEngine(7))
    with pytest.raises(ConfigError, match=r"an engine, which computes as it does"):
        pair(tokenizer, FakeEngine(), FakeEngine(7), refine=1.0)
    engine = FakeEngine()
    with pytest.raises(ConfigError, match="same model"):
        pair(tokenizer, engine, engine)
    with pytest.raises(DataError, match="max_length 4"):
        pair(tokenizer, FakeEngine(), FakeEngine(7), max_length=4).score(["q" * 99], ["a"])


@pytest.mark.slow
def test_a_model_that_is_not_local_needs_no_torch(tokenizer: str, tmp_path: Path) -> None:
    script = tmp_path / "without_torch.py"
    script.write_text(
        "import sys\n"
        "sys.modules['torch'] = None  # importing it fails, and it is not found\n"
        "from drsow_plugin import DrSoW, FakeEngine\n"
        f"options = dict(tokenizer={tokenizer!r}, template='none', router='keyword')\n"
        "drsow = DrSoW(FakeEngine(10), FakeEngine(1000), **options)\n"
        "reward = drsow.score(['A question?'], ['It is Paris.'])[0]\n"
        "drsow.describe(), drsow.fingerprint\n"
        "print(reward.reward / reward.strong_tokens, sys.modules['torch'])\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    value, torch = done.stdout.split()
    assert float(value) == pytest.approx(math.log(100)) and torch == "None"
