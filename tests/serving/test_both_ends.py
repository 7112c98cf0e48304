"""A pair whose models live on servers is served itself: HTTP at both ends."""

from __future__ import annotations

import pytest
from helpers.model_server import ModelServer, html
from helpers.served import saved
from helpers.serving import ask, serving

from drsow_plugin import DrSoW

ROWS = {"prompts": ["Say it.", "Add two numbers."], "responses": ["Ça va.", "    return a + b"]}


@pytest.mark.fault(
    "server",
    "`drsow serve` over a server that fails",
    "status 500 with the reason; the next request is answered",
)
def test_rewards_are_those_of_the_weights_and_a_server_that_fails_is_told(
    strong: str, weak: str
) -> None:
    here = [r.reward for r in DrSoW(strong, weak, dtype="float64").score(**ROWS)]
    with ModelServer(model=saved(strong, "one")) as model:
        remote = {"strong_server": model.url, "strong_server_model": "one"}
        with serving(strong=strong, weak=weak, weak_dtype="float64", **remote) as url:
            got = ask(f"{url}/v1/rewards", ROWS).body["rewards"]
            assert [row["reward"] for row in got] == pytest.approx(here, abs=1e-9)
            model.faults[:] = [html] * 20
            failed = ask(f"{url}/v1/rewards", ROWS)
            assert failed.code == 500 and model.url in failed.error
            model.faults.clear()
            assert ask(f"{url}/v1/rewards", ROWS).code == 200
