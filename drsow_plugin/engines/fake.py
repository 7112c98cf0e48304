"""An engine for tests: closed-form log-probs, and failures and waits where they are asked for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence

from drsow_plugin.engines import TokenLogProbs
from drsow_plugin.records import TokenPair


class FakeEngine:
    """Answers log-probs that are known beforehand, without a model.

    By default every token has the probability ``1 / vocab_size`` wherever it stands, so that
    a response of n tokens has the log-prob ``-n ln(vocab_size)``::

        drsow = DrSoW(FakeEngine(1000), FakeEngine(10), strong_tokenizer=…, weak_tokenizer=…)

    Attributes:
        identity: What results and finished work know it by.
        calls: The pairs of each call so far.
    """

    def __init__(
        self,
        vocab_size: int = 256,
        *,
        logprobs: Callable[[TokenPair], TokenLogProbs | Exception] | None = None,
        latency: float = 0.0,
        identity: str | None = None,
    ) -> None:
        """Settle what is answered.

        Args:
            vocab_size: Tokens of which all are as probable.
            logprobs: What is answered for a pair, instead: the log-prob of each response token
                in nats, a :class:`~drsow_plugin.records.Problem` for a pair that fails, or an
                exception, which is raised, for an engine that does.
            latency: Seconds before each answer.
            identity: What tells this engine from others that answer otherwise; needed with
                ``logprobs`` where finished work is kept.

        Raises:
            ValueError: ``vocab_size`` is less than 1.
        """
        if vocab_size < 1:
            raise ValueError(f"vocab_size is at least 1, got {vocab_size}.")
        self._vocab_size = vocab_size
        self._logprobs = logprobs
        self._latency = latency
        self.identity = identity or ("" if logprobs else f"uniform over {vocab_size} tokens")
        self.calls: list[list[TokenPair]] = []

    def logprobs(self, pairs: Sequence[TokenPair]) -> Iterator[tuple[int, TokenLogProbs]]:
        """Score responses; see :class:`drsow_plugin.engines.Engine`."""
        self.calls.append([*pairs])
        for index, pair in enumerate(pairs):
            if self._latency:
                time.sleep(self._latency)
            answer = self._uniform(pair) if self._logprobs is None else self._logprobs(pair)
            if isinstance(answer, Exception):
                raise answer
            yield index, answer

    def _uniform(self, pair: TokenPair) -> list[float]:
        return [-math.log(self._vocab_size)] * len(pair.response_ids)
