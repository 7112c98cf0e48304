"""From what an engine answers to log-probs: summed, checked, one for each pair that was asked."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Mapping, Sequence, Set
from numbers import Integral, Real
from typing import Any

from drsow_plugin.engines import Engine
from drsow_plugin.errors import EngineError
from drsow_plugin.records import NOT_FINITE, LogProb, Problem, TokenPair

_MAX_ROUNDING = 1e-3  # nats, by which rounding may lift a log-prob above 0


def logprobs_of(
    engine: Engine, pairs: Sequence[TokenPair], name: str = "the engine"
) -> Generator[tuple[int, LogProb], None, None]:
    """Yield the index of each pair with its log-prob, as soon as the engine knows it.

    Plainly::

        LogProb(sum(token_logprobs), len(token_logprobs))

    A pair that comes again is asked for once, and an empty response, whose log-prob is 0, not
    at all. What is not finite is a problem.

    Args:
        engine: What is asked.
        pairs: Prompts and responses as token ids.
        name: What the engine is called in an error.

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
    asked = tuple(pairs[indices[0]] for indices in waiting)
    answers = engine.logprobs(asked)
    if not isinstance(answers, Iterable) or isinstance(answers, (str, Mapping, Set)):
        raise EngineError(f"{_answered(name, answers)} in place of pairs of {_EXPECTED}.")
    try:
        for item in answers:
            number, answer = _parted(item, waiting, name)
            logprob = _summed(answer, len(asked[number].response_ids), f"{name}, pair {number},")
            indices, waiting[number] = waiting[number], []
            yield from ((index, logprob) for index in indices)
    finally:  # also where no more answers are wanted
        if isinstance(answers, Generator):
            answers.close()
    missing = sum(map(len, waiting))
    if missing:
        raise EngineError(
            f"{name} did not answer for {missing} of {len(pairs)} responses. Where there is no "
            "log-prob it answers with a Problem."
        )


_EXPECTED = "an index and the log-prob of each response token, or a Problem"


def _answered(name: str, what: object) -> str:
    return f"{name} answered with {what!r:.80}"


def _parted(item: Any, waiting: Sequence[Sequence[int]], name: str) -> tuple[int, Any]:
    """Return the index and the rest of one answer, of pairs that still wait for one."""
    is_pair = isinstance(item, (tuple, list)) and len(item) == 2
    if not is_pair or not isinstance(item[0], Integral):
        raise EngineError(f"{_answered(name, item)} in place of {_EXPECTED}.")
    number = int(item[0])
    if not 0 <= number < len(waiting):
        raise EngineError(f"{name} answered for pair {number}, of {len(waiting)} from 0 on.")
    if not waiting[number]:
        raise EngineError(f"{name} answered for pair {number} twice.")
    return number, item[1]


def _summed(answer: Any, tokens: int, name: str) -> LogProb:
    """Return the log-prob of a response from those of its tokens."""
    if isinstance(answer, Problem):
        return LogProb(math.nan, tokens, problem=answer)
    if hasattr(answer, "tolist"):  # an array or a tensor
        answer = answer.tolist()
    numbers = isinstance(answer, Sequence) and not isinstance(answer, str)
    if not numbers or not all(isinstance(v, Real) and not isinstance(v, bool) for v in answer):
        raise EngineError(f"{_answered(name, answer)} in place of {tokens} numbers or a Problem.")
    values = tuple(map(float, answer))
    if len(values) != tokens:
        raise EngineError(f"{name} gave {len(values)} log-probs for {tokens} tokens.")
    unusual = next((value for value in values if not math.isfinite(value)), None)
    if unusual is not None:
        problem = Problem(NOT_FINITE, f"the log-prob came out as {unusual}")
        return LogProb(math.nan, tokens, problem=problem)
    if max(values) > _MAX_ROUNDING:
        raise EngineError(
            f"{name} gave {max(values):g} as the log-prob of a token: in nats it is at most 0."
        )
    return LogProb(math.fsum(values), tokens, values)
