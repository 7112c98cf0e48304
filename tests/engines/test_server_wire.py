"""What is sent to each kind of server, what comes back, and which servers are refused."""

from __future__ import annotations

import math
import re

import pytest
from helpers.dialects import ServedModel
from helpers.engines import rows
from helpers.model_server import ModelServer, formula
from helpers.served import answers, engine, servers

from drsow_plugin.engines.results import logprobs_of
from drsow_plugin.errors import ConfigError
from drsow_plugin.records import NOT_FINITE, TokenPair

PAIRS = rows(1)
KINDS = {
    "vllm": ("vLLM", "0.32.0", "completions, prompt_logprobs"),
    "vllm_v2": ("vLLM", "0.32.0", "inference/v1/generate, prompt_logprob_token_ids"),
    "sglang": ("SGLang", "0.5.23", "generate, logprob_start_len"),
    "openai": ("OpenAI-compatible", None, "completions, echo"),
}


def expected(pairs: list[TokenPair]) -> list[list[float]]:
    logprobs = formula()
    return [
        logprobs([*pair.prompt_ids, *pair.response_ids])[len(pair.prompt_ids) - 1 :]
        for pair in pairs
    ]


@pytest.mark.parametrize("dialect", KINDS)
def test_each_kind_of_server_is_known_and_gives_the_log_probs_of_the_response(dialect: str) -> None:
    with ModelServer(dialect) as server:
        asked = engine(server)
        found = answers(asked, PAIRS)
    for mine, its in zip(found, expected(PAIRS), strict=True):
        assert mine == pytest.approx(its, abs=1e-6)  # float32 on the wire of one of them
    served = servers_of(asked)
    assert (served.kind, served.version, served.form) == KINDS[dialect]
    assert asked.is_loaded and asked.device.startswith(KINDS[dialect][0])


def servers_of(asked: object) -> object:
    return asked._servers.served  # type: ignore[attr-defined]


def test_what_a_server_tells_of_itself_is_read_and_no_more() -> None:
    with ModelServer("sglang") as server:
        served = servers(server).served
    assert (served.dtype, served.root, served.max_length) == ("bfloat16", "org/strong", 511)
    assert "hidden" not in repr(served)


def test_sglang_knows_the_last_token_of_a_vocabulary_though_it_writes_another() -> None:
    with ModelServer("sglang", ServedModel("strong", formula(), vocab_size=100)) as server:
        (found,) = answers(engine(server), [TokenPair((1, 2), (99, 3))])
    assert found == formula()([1, 2, 99, 3])[1:]


def test_only_token_ids_are_sent() -> None:
    for dialect in KINDS:
        with ModelServer(dialect) as server:
            answers(engine(server), PAIRS)
            for _, body in server.requests:
                sent = body.get("prompt") or body.get("input_ids") or [body.get("token_ids")]
                assert all(type(token) is int for ids in sent for token in ids)


def test_vllms_cache_is_read_and_asked_around_where_values_are_missing() -> None:
    with ModelServer("vllm_v2") as server:
        asked = engine(server)
        first, again = answers(asked, PAIRS), answers(asked, PAIRS)
        skipped = [
            body["sampling_params"]["skip_reading_prefix_cache"] for _, body in server.scored
        ]
    assert first == again
    assert skipped.count(False) == 2 * len(PAIRS) and skipped.count(True) == len(PAIRS)


def test_what_stands_for_minus_infinity_is_no_number() -> None:
    def impossible(ids: list[int]) -> list[float]:
        return [-9999.0 if token == 5 else -1.0 - token / 100 for token in ids[1:]]

    with ModelServer(model=ServedModel("strong", impossible)) as server:
        asked = engine(server)
        (values, other) = answers(asked, [TokenPair((1,), (5, 6)), TokenPair((1,), (6,))])
        found = dict(logprobs_of(asked, [TokenPair((1,), (5, 6))]))
    assert values == [-math.inf, -1.06] and other == [-1.06]
    problem = found[0].problem
    assert problem is not None and problem.kind == NOT_FINITE


@pytest.mark.parametrize(
    ("dialect", "said"),
    [
        ("llama.cpp", "(llama.cpp) gives no log-probs of prompts.* give the .gguf file itself"),
        ("llama-cpp-python", "(llama-cpp-python) gives no .*give the .gguf file itself as strong="),
        ("shifted", "(OpenAI-compatible) .*serve the model with vLLM or SGLang.*as if shifted"),
    ],
)
def test_servers_that_ignore_or_shift_are_refused_with_what_to_use(dialect: str, said: str) -> None:
    with ModelServer(dialect) as server, pytest.raises(ConfigError) as caught:
        servers(server)
    assert re.search(said.replace("(", r"\(").replace(")", r"\)"), str(caught.value))
    assert server.url in str(caught.value)


def test_a_server_that_says_the_same_of_every_token_is_refused() -> None:
    model = ServedModel("strong", lambda ids: [-1.0] * (len(ids) - 1))
    with (
        ModelServer(model=model) as server,
        pytest.raises(ConfigError, match="every token has the same log-prob"),
    ):
        servers(server)


def test_log_probs_above_zero_are_none() -> None:
    model = ServedModel("strong", lambda ids: [token / 10 for token in ids[1:]])
    with (
        ModelServer(model=model) as server,
        pytest.raises(ConfigError, match=r"4\.\d came in place of a log-prob|3\.\d"),
    ):
        servers(server)


def test_a_model_with_fewer_token_ids_than_the_tokenizer_is_another() -> None:
    with (
        ModelServer(model=ServedModel("strong", formula(), vocab_size=99)) as server,
        pytest.raises(ConfigError, match="does not know token 99, which the tokenizer of 'org/st"),
    ):
        servers(server)


@pytest.mark.parametrize("served", ["strong", "Strong", "org/strong", "mirror/STRONG"])
def test_a_model_is_found_by_its_own_name(served: str) -> None:
    with ModelServer(model=ServedModel(served, formula())) as server:
        assert servers(server).served.model == served


def test_another_model_has_to_be_named() -> None:
    with ModelServer(model=ServedModel("other", formula())) as server:
        with pytest.raises(ConfigError, match=r"serves 'other', and strong='org/strong' is none"):
            servers(server)
        with pytest.raises(ConfigError, match=r"strong_server_model='mine' is none of them"):
            servers(server, model="mine")
        assert servers(server, model="other").served.model == "other"
