"""Models on servers, as lm-eval names them in its arguments."""

from __future__ import annotations

import pytest
from helpers.harness import request
from helpers.model_server import ModelServer
from helpers.served import saved

from drsow_plugin import DrSoW
from drsow_plugin.harness.model import DrSoWLM


def test_servers_in_lm_evals_arguments_give_the_rewards_of_the_weights(
    strong: str, weak: str
) -> None:
    texts = ["Seven.", "  A cat."]
    requests = [request("loglikelihood", ("Name a prime.", text), "x") for text in texts]
    with (
        ModelServer(model=saved(strong, "one")) as one,
        ModelServer(model=saved(strong, "one")) as two,
    ):
        model = DrSoWLM.create_from_arg_string(
            f"strong={strong},strong_server={one.url}+{two.url},strong_server_model=one,"
            f"weak={weak},weak_dtype=float64",
            {"device": "cpu", "batch_size": 1},
        )
        found = [reward for reward, _ in model.loglikelihood(requests)]
        described = str(model.get_model_info())
    here = DrSoW(strong, weak, dtype="float64").score(["Name a prime."] * 2, texts)
    assert found == pytest.approx([reward.reward for reward in here], abs=1e-9)
    assert one.url in described and "vLLM" in described
