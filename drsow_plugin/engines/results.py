"""From what an engine answers to log-probs: summed, checked, one for each pair that was asked."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence

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
    answers = engine.logprobs(asked)
    try:
        for number, answer in answers:
            if not 0 <= number < len(asked) or not waiting[number]:
                raise EngineError(
                    f"The engine answered for pair {number!r}, which is none of the {len(asked)} "
                    "that it was asked for, or was answered before. Each is answered once."
                )
            logprob = _summed(answer, len(asked[number].response_ids))
            indices, waiting[number] = waiting[number], []
            for index in indices:
                yield index, logprob
    finally:  # also where no more answers are wanted
        if isinstance(answers, Generator):
            answers.close()
    missing = sum(map(len, waiting))
    if missing:
        raise EngineError(
            f"The engine did not answer for {missing} of {len(pairs)} responses. Where there is no "
            "log-prob it answers with a Problem."
        )


def _summed(answer: TokenLogProbs, tokens: int) -> LogProb:
    """Return the log-prob of a response from those of its tokens."""
    if isinstance(answer, Problem):
        return LogProb(math.nan, tokens, problem=answer)
    values = tuple(map(float, answer))
    if len(values) != tokens:
        raise EngineError(f"The engine gave {len(values)} log-probs for {tokens} tokens.")
    unusual = next((value for value in values if not math.isfinite(value)), None)
    if unusual is not None:
        problem = Problem(NOT_FINITE, f"the log-prob came out as {unusual}")
        return LogProb(math.nan, tokens, problem=problem)
    return LogProb(math.fsum(values), tokens, values)
