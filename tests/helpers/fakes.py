"""A pair of engines without weights, for tests where any reward will do."""

from __future__ import annotations

import functools
import random
from typing import Any

from transformers import PreTrainedTokenizerFast

from drsow_plugin import Annotator, FakeEngine, TokenPair

from . import tiny


@functools.cache
def _tokenizer() -> PreTrainedTokenizerFast:
    return tiny.tokenizer("gpt2_bos")


def _engine(name: str) -> FakeEngine:
    def answer(pair: TokenPair) -> list[float]:
        chance = random.Random(repr((name, pair.prompt_ids, pair.response_ids)))
        return [-chance.expovariate(0.5) for _ in pair.response_ids]

    return FakeEngine(logprobs=answer, identity=name)


def fake_pair(**options: Any) -> dict[str, Any]:
    """Return options of a pair whose log-probs follow from its name and the tokens alone."""
    engines = {side: _engine(side) for side in ("strong", "weak")}
    return {**engines, "tokenizer": _tokenizer(), "max_length": 512, **options}


def fake_annotator(**options: Any) -> Annotator:
    return Annotator(**fake_pair(**options))
