"""The ways to ask servers for the log-probs of a response: what is sent, and what comes back.

Whatever the form, a row goes as the token ids of prompt and response in one list, and of what comes
back only the log-probs at the response's positions count::

    logprobs = [ln_p(ids[i], given=ids[:i]) for i in range(len(prompt_ids), len(ids))]

Text is never sent: a server that tokenizes may add a BOS, or merge prompt and response.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, Protocol

from drsow_plugin.records import TokenPair

CLAMPED = -9999.0
"""What vLLM writes for minus infinity, which JSON has no word for."""


class FormError(Exception):
    """An answer is not what was asked for."""


class MissingValuesError(FormError):
    """An answer lacks the values of a row that the server had in its prefix cache."""


class Form(Protocol):
    """A way to ask.

    Attributes:
        name: What it is called in results.
        path: Where it is asked for, under the server's address; one that begins with ``/`` is not
            under the path of OpenAI's interface.
        max_rows: Most rows of a request.
    """

    name: str
    path: str
    max_rows: int

    def body(self, model: str, pairs: Sequence[TokenPair], *, cached: bool = True) -> Any:
        """Return the request for some rows.

        Args:
            model: What the server calls the model.
            pairs: The rows.
            cached: Whether prefixes may come from the server's cache, where that is asked for.
        """
        ...

    def logprobs(self, answer: Any, pairs: Sequence[TokenPair]) -> list[list[float]]:
        """Return the log-prob of each response token of each row, in nats.

        Raises:
            FormError: The answer lacks them, or is not about these token ids.
        """
        ...


class PromptLogprobs:
    """vLLM's ``prompt_logprobs`` in OpenAI's completions: log-probs by token id."""

    name = "completions, prompt_logprobs"
    path = "completions"
    max_rows = 1024

    def body(self, model: str, pairs: Sequence[TokenPair], *, cached: bool = True) -> Any:
        """Return the request; see :class:`Form`."""
        asked = {"prompt_logprobs": 0, "max_tokens": 1, "temperature": 0}
        return {"model": model, "prompt": [_ids(pair) for pair in pairs], **asked}

    def logprobs(self, answer: Any, pairs: Sequence[TokenPair]) -> list[list[float]]:
        """Return the log-probs; see :class:`Form`."""
        rows = []
        for choice, pair in zip(_choices(answer, len(pairs)), pairs, strict=True):
            found = _list(choice, "prompt_logprobs", len(pair))
            rows.append(
                [
                    _number(_of_token(entry, token))
                    for entry, token in zip(
                        found[len(pair.prompt_ids) :], pair.response_ids, strict=True
                    )
                ]
            )
        return rows


class TokensInOut:
    """vLLM's ``/inference/v1/generate``: computes what is asked for only, and reads its cache."""

    name = "inference/v1/generate, prompt_logprob_token_ids"
    path = "/inference/v1/generate"
    max_rows = 1

    def body(self, model: str, pairs: Sequence[TokenPair], *, cached: bool = True) -> Any:
        """Return the request; see :class:`Form`."""
        (pair,) = pairs
        asked = {
            "prompt_logprob_start": len(pair.prompt_ids) - 1,
            "prompt_logprob_token_ids": [[token] for token in pair.response_ids],
            "skip_reading_prefix_cache": not cached,
        }
        sampling = {"max_tokens": 1, "temperature": 0, **asked}
        return {"model": model, "token_ids": _ids(pair), "sampling_params": sampling}

    def logprobs(self, answer: Any, pairs: Sequence[TokenPair]) -> list[list[float]]:
        """Return the log-probs; see :class:`Form`.

        Raises:
            MissingValuesError: The cache reached into the response, so that they are missing.
        """
        import numpy as np

        encoded = _part(answer, "prompt_token_id_logprobs")
        if encoded is None:
            raise MissingValuesError("prompt_token_id_logprobs is missing")
        try:
            array = np.load(io.BytesIO(base64.b64decode(encoded)), allow_pickle=False)
        except (TypeError, ValueError, EOFError, OSError, binascii.Error) as error:
            raise FormError(f"prompt_token_id_logprobs is no array: {error}") from None
        expected = (len(pairs[0].response_ids), 1)
        if array.shape != expected:
            raise FormError(f"an array of shape {array.shape} came in place of one of {expected}")
        values = [_number(value) for value in array[:, 0].tolist()]
        if any(map(math.isnan, values)):
            raise MissingValuesError("prompt_token_id_logprobs has values that are missing")
        return [values]


class SGLangGenerate:
    """SGLang's ``/generate`` with ``logprob_start_len``: the prefix comes from its cache."""

    name = "generate, logprob_start_len"
    path = "/generate"
    max_rows = 1024

    def body(self, model: str, pairs: Sequence[TokenPair], *, cached: bool = True) -> Any:
        """Return the request; see :class:`Form`."""
        return {
            "input_ids": [_ids(pair) for pair in pairs],
            "sampling_params": {"max_new_tokens": 0, "temperature": 0},
            "return_logprob": True,
            "logprob_start_len": [len(pair.prompt_ids) - 1 for pair in pairs],
        }

    def logprobs(self, answer: Any, pairs: Sequence[TokenPair]) -> list[list[float]]:
        """Return the log-probs; see :class:`Form`."""
        if not isinstance(answer, list) or len(answer) != len(pairs):
            raise FormError(f"{_short(answer)} came in place of a list of {len(pairs)}")
        rows = []
        for item, pair in zip(answer, pairs, strict=True):
            found = _part(_part(item, "meta_info"), "input_token_logprobs")
            tokens = len(pair.response_ids)
            if not isinstance(found, list) or len(found) < tokens:
                raise FormError(f"input_token_logprobs is {_short(found)}, for {tokens} tokens")
            entries = found[-tokens:]
            if not all(isinstance(entry, list) and len(entry) > 1 for entry in entries):
                raise FormError(f"input_token_logprobs is {_short(found)}")
            # SGLang writes the last token id of a vocabulary as 0.
            ids = zip(entries, pair.response_ids, strict=True)
            _check_ids([entry[1] or token for entry, token in ids], pair.response_ids)
            rows.append([_number(entry[0]) for entry in entries])
        return rows


class Echo:
    """OpenAI's completions with ``echo``: the prompt comes back with its log-probs."""

    path = "completions"
    max_rows = 1024

    def __init__(self, *, with_ids: bool) -> None:
        """Choose whether tokens are to come back as ids, which not every server takes."""
        self._with_ids = with_ids
        self.name = "completions, echo" + (" with ids" if with_ids else "")

    def body(self, model: str, pairs: Sequence[TokenPair], *, cached: bool = True) -> Any:
        """Return the request; see :class:`Form`."""
        asked = {"echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0}
        ids = {"return_tokens_as_token_ids": True} if self._with_ids else {}
        return {"model": model, "prompt": [_ids(pair) for pair in pairs], **asked, **ids}

    def logprobs(self, answer: Any, pairs: Sequence[TokenPair]) -> list[list[float]]:
        """Return the log-probs; see :class:`Form`."""
        rows = []
        for choice, pair in zip(_choices(answer, len(pairs)), pairs, strict=True):
            given = _part(choice, "logprobs")
            found, tokens = _part(given, "token_logprobs"), _part(given, "tokens")
            first, end = len(pair.prompt_ids), len(pair)
            # The token that is generated stands at the end, where the server gives it.
            if not isinstance(found, list) or len(found) not in (end, end + 1):
                raise FormError(f"token_logprobs is {_short(found)}, for {end} tokens")
            if self._with_ids:
                _check_ids(_echoed_ids(tokens, end)[first:], pair.response_ids)
            rows.append([_number(value) for value in found[first:end]])
        return rows


def _ids(pair: TokenPair) -> list[int]:
    return [*pair.prompt_ids, *pair.response_ids]


def _part(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _short(value: Any) -> str:
    return f"a list of {len(value)}" if isinstance(value, list) else f"{value!r:.60}"


def _choices(answer: Any, rows: int) -> list[Any]:
    """Return the answers of OpenAI's completions, in the order of the prompts."""
    choices = _part(answer, "choices")
    if not isinstance(choices, list):
        raise FormError("the answer has no choices")
    by_index = {_part(choice, "index"): choice for choice in choices}
    if len(choices) != rows or set(by_index) != set(range(rows)):
        raise FormError(f"{len(choices)} choices came for {rows} prompts")
    return [by_index[index] for index in range(rows)]


def _list(choice: Any, name: str, length: int) -> list[Any]:
    found = _part(choice, name)
    if not isinstance(found, list) or len(found) != length:
        raise FormError(f"{name} is {_short(found)}, for {length} tokens")
    return found


def _of_token(entry: Any, token: int) -> Any:
    """Return the log-prob of a token among those at its position, which are named by their id."""
    found = _part(entry, str(token))
    if found is None:
        raise FormError(f"token {token} was asked for, and {_short(entry)} came")
    return _part(found, "logprob")


def _echoed_ids(tokens: Any, length: int) -> list[int]:
    """Return the ids of tokens that are written as ``token_id:905``."""
    if not isinstance(tokens, list) or len(tokens) < length:
        raise FormError(f"tokens is {_short(tokens)}, for {length} tokens")
    try:
        return [int(str(token).removeprefix("token_id:")) for token in tokens[:length]]
    except ValueError:
        raise FormError("tokens came back as texts, not ids") from None


def _check_ids(found: Sequence[Any], expected: Sequence[int]) -> None:
    for got, token in zip(found, expected, strict=True):
        if got != token:
            raise FormError(f"token {token} was asked for, and {got!r:.40} came")


def _number(value: Any) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise FormError(f"{value!r:.40} came in place of a log-prob")
    number = float(value)
    return -math.inf if number <= CLAMPED else number
