"""Studies of models without weights, whose margins are known row by row."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from drsow_plugin import FakeEngine, TokenPair

from . import tiny

FLOOR = -50.0


@functools.cache
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny.tokenizer("gpt2_bos")


def study_rows(count: int, **columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return pairs whose responses say the number of their row."""
    return [
        {
            "prompt": f"Question {n}?",
            "chosen": f"right {n}",
            "rejected": f"wrong {n}",
            **{name: values[n] for name, values in columns.items()},
        }
        for n in range(count)
    ]


def known_engine(margins: Sequence[float], name: str) -> FakeEngine:
    """Return an engine by which the chosen response of row n is ahead by ``margins[n]`` nats."""

    def answer(pair: TokenPair) -> list[float]:
        kind, number = tokenizer().decode(pair.response_ids).split()
        value = FLOOR + margins[int(number)] if kind == "right" else FLOOR
        return [value] + [0.0] * (len(pair.response_ids) - 1)

    return FakeEngine(logprobs=answer, identity=f"{name} {list(margins)}")


def known_model(margins: Sequence[float], name: str = "m", **options: Any) -> dict[str, Any]:
    """Return a model of a study with known margins."""
    engine = known_engine(margins, name)
    return {"source": engine, "tokenizer": tokenizer(), "template": "none", **options}


def random_margins(models: int, rows: int, seed: int = 0) -> np.ndarray:
    """Return margins in nats, (models, rows), of models that are better the later they come."""
    chance = np.random.default_rng(seed)
    return chance.normal(np.linspace(-1, 1, models)[:, None], 1.5, (models, rows))


def answered(model: dict[str, Any]) -> int:
    """Return how many responses the engine of a model was asked for."""
    return sum(map(len, model["source"].calls))
