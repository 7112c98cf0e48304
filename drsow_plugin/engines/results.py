"""From what an engine answers to log-probs: summed, checked, one for each pair that was asked."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from contextlib import closing

from drsow_plugin.engines import Engine, TokenLogProbs
from drsow_plugin.errors import EngineError
from drsow_plugin.records import NOT_FINITE, LogProb, Problem, TokenPair


def logprobs_of(
    engine: Engine, pairs: Sequence[TokenPair]
) -> Generator[tuple[int, LogProb], None, None]:
    """Yield the index of each pair with its log-prob, as soon as the engine knows it.

    Plainly::

        LogProb(sum(token_logprobs), len(token_logprobs))

    A pair that comes again is asked for once, and an empty response, whose log-prob is 0, not
    at all. What is not finite is a problem.

    Args:
        engine: What is asked.
        pairs: Prompts and responses as token ids.

    Raises:
        EngineError: The engine failed, or its answer does not go with the pairs.
    """
    places: dict[tuple[tuple[int, ...], tuple[int, ...]], list[int]] = {}
    for index, pair in enumerate(pairs):
        if pair.response_ids:
            places.setdefault((pair.prompt_ids, pair.response_ids), []).append(index)
        else:
            yield index, LogProb(0.0, 0, ())
    if not places:
        return
    waiting = [*places.values()]
    asked = [pairs[indices[0]] for indices in waiting]
    with closing(engine.logprobs(asked)) as answers:
        for number, answer in answers:
            logprob = _summed(answer, len(asked[number].response_ids))
            indices, waiting[number] = waiting[number], []
            for index in indices:
                yield index, logprob
    missing = sum(map(len, waiting))
    if missing:
        raise EngineError(f"The engine answered for all but {missing} of {len(pairs)} responses.")


def _summed(answer: TokenLogProbs, tokens: int) -> LogProb:
    """Return the log-prob of a response from those of its tokens."""
    if isinstance(answer, Problem):
        return LogProb(math.nan, tokens, problem=answer)
    if len(answer) != tokens:
        raise EngineError(f"The engine gave {len(answer)} log-probs for {tokens} tokens.")
    unusual = next((value for value in answer if not math.isfinite(value)), None)
    if unusual is not None:
        problem = Problem(NOT_FINITE, f"the log-prob came out as {unusual}")
        return LogProb(math.nan, tokens, problem=problem)
    return LogProb(math.fsum(answer), tokens, tuple(answer))
