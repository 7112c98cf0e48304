"""``drsow_reward``: the reward for trainers that take the path of a function, such as ``trl grpo``.

The environment variable ``DRSOW_REWARD`` says what it is of: a YAML file with the options of a
pair, or the URL of a running ``drsow serve``, with its key in ``DRSOW_API_KEY``. It is read, and
checked, when ``drsow_reward`` is imported from here: before a trainer does any work.
"""

from __future__ import annotations

import functools
import http.client
import json
import math
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from drsow_plugin.config.files import code_in, read_options
from drsow_plugin.errors import ConfigError, DataError, EngineError
from drsow_plugin.progress import tell
from drsow_plugin.records import Problem, Prompt, Reward
from drsow_plugin.scoring.reward_function import RewardFunction

if TYPE_CHECKING:
    drsow_reward: RewardFunction

VARIABLE = "DRSOW_REWARD"
"""The environment variable that says what ``drsow_reward`` is the reward of."""

_KEY = "DRSOW_API_KEY"
_ROWS = 256  # of a request
_TIMEOUT_S = 600.0  # of a request
_PATIENCE_S = 300.0  # with a server that cannot be reached or is busy
_PAUSE_S = 2.0
_NUMBERS = ("reward", "strong_logprob", "weak_logprob")
_FIELDS = {*_NUMBERS, "strong_tokens", "weak_tokens", "status", "notes", "domain"}
_TRANSIENT = (429, 502, 503, 504)


def _opener() -> urllib.request.OpenerDirector:
    """Return what sends requests: to nobody but the server, so by no proxy and no redirection."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def __getattr__(name: str) -> RewardFunction:
    """Open the pair, or reach the server, when ``drsow_reward`` is first imported (PEP 562)."""
    if name == "drsow_reward":
        return open_reward(os.environ.get(VARIABLE, ""))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@functools.cache
def open_reward(source: str) -> RewardFunction:
    """Return the reward of a pair or of a server.

    Args:
        source: A YAML or JSON file with the options of a pair, or the URL of a ``drsow serve``.

    Raises:
        ConfigError: It is neither, an option or a model is wrong, or no such server answers.
    """
    if _is_address(source):
        client = RewardClient(source, os.environ.get(_KEY))
        client.check()
        return RewardFunction(client.score)
    if not source:
        raise ConfigError(
            f"Set the environment variable {VARIABLE} to a YAML file with the options of a pair, "
            "such as 'strong: org/model', or to the URL of a running drsow serve."
        )
    said = f"{VARIABLE}={source}"
    options = read_options(source, said)
    if code := "; ".join(code_in(options, options)):
        raise ConfigError(
            f"{said} would run code: {code}. Open such a pair in Python: "
            "DrSoW(…).as_reward_function()."
        )
    from drsow_plugin.config.pair import parse_pair
    from drsow_plugin.scoring.drsow import DrSoW

    try:
        config = parse_pair(options)
    except ConfigError as error:
        raise ConfigError(f"{said}: {error}") from error
    return DrSoW.from_config(config).as_reward_function()


def _is_address(source: str) -> bool:
    """Tell whether a text is meant for an address, which may hold a key; no file is said so."""
    if "://" in source:
        return True
    try:
        is_file = Path(source).expanduser().exists()
    except (OSError, RuntimeError):  # a name that is too long, or somebody's home
        is_file = False
    return not is_file and bool(re.search(r"@|:\d", source))


class RewardClient:
    """Asks a running ``drsow serve`` for rewards."""

    def __init__(self, url: str, key: str | None = None) -> None:
        """Remember the server.

        Args:
            url: Its address, such as ``http://127.0.0.1:8080``; the key may be its password.
            key: What it asks for, or ``None``.

        Raises:
            ConfigError: The address is none, or the key cannot be sent.
        """
        try:
            parts = urlsplit(url)
            is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
            is_url = is_url and "@" not in parts.path  # a key with a bare slash in it
        except ValueError:
            is_url = False
        if not is_url:  # what was given is not said, as a key may be in it
            raise ConfigError(
                "The address of a drsow serve is a URL such as http://127.0.0.1:8080, and the one "
                "that was given is none."
            )
        key = (unquote(parts.password or "") or key or "").strip()
        if not key.isascii() or not key.isprintable() or " " in key:  # http.client would quote it
            raise ConfigError(
                f"The key of the URL or of {_KEY} is none: it is printable ASCII without spaces."
            )
        self._url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def check(self) -> None:
        """Check that the server is there and takes the key; its models may still be loading.

        Raises:
            ConfigError: It is not.
        """
        try:
            self._rewards([], [])
        except (OSError, http.client.HTTPException) as error:
            raise ConfigError(
                f"{self._url} cannot be reached: {getattr(error, 'reason', error)}. Start it with "
                "drsow serve, and look at its address."
            ) from error

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Reward]:
        """Return the reward of each response; see :meth:`drsow_plugin.DrSoW.score`.

        A server that is busy or starts again is waited for.

        Raises:
            DataError: The server refuses the rows.
            EngineError: It fails, or cannot be reached for minutes.
        """
        rewards: list[Reward] = []
        for begun in range(0, len(responses), _ROWS):
            some = slice(begun, begun + _ROWS)
            rewards += self._patiently(prompts[some], responses[some])
        return rewards

    def _patiently(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Reward]:
        end = time.monotonic() + _PATIENCE_S
        is_told = False
        while True:
            pause = _PAUSE_S
            try:
                return self._rewards(prompts, responses)
            except urllib.error.HTTPError as error:
                said, pause = f"HTTP {error.code}", _retry_after(error) or pause
            except (OSError, http.client.HTTPException) as error:
                said = str(getattr(error, "reason", error)) or type(error).__name__
            if time.monotonic() + pause > end:
                raise EngineError(f"{self._url} gave no rewards for {_PATIENCE_S:.0f} s: {said}.")
            if not is_told:
                tell(f"waiting for {self._url}: {said}")
                is_told = True
            time.sleep(pause)

    def _rewards(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Reward]:
        """Ask once.

        Raises:
            HTTPError: The server is busy or starting.
            OSError: It cannot be reached.
        """
        body = json.dumps({"prompts": [*prompts], "responses": [*responses]}, default=list)
        headers = {"Content-Type": "application/json", **self._headers}
        url = f"{self._url}/v1/rewards"  # of http or https: see __init__
        request = urllib.request.Request(url, body.encode(), headers)  # noqa: S310
        try:
            with _opener().open(request, timeout=_TIMEOUT_S) as response:
                answer = response.read()
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error) from None
        return [*self._parsed(answer, len(responses))]

    def _refused(self, error: urllib.error.HTTPError) -> Exception:
        if error.code in _TRANSIENT:
            return error
        said = _message(error.read()) or "its answer is none of drsow serve's"
        text = f"{self._url} answers HTTP {error.code}: {said}"
        if error.code in (401, 403):
            return ConfigError(f"{text} The key is taken from {_KEY}.")
        if error.code >= 500:
            return EngineError(text)
        return DataError(text) if error.code in (400, 413, 422) else ConfigError(text)

    def _parsed(self, answer: bytes, count: int) -> Iterator[Reward]:
        rows = _values(answer).get("rewards")
        if not isinstance(rows, list) or len(rows) != count or not all(map(_is_whole, rows)):
            raise ConfigError(
                f"{self._url} answers with something else than {count} rewards. Is it drsow serve?"
            )
        for row in rows:
            yield Reward(
                reward=row["reward"],
                strong_logprob=row["strong_logprob"],
                weak_logprob=row["weak_logprob"],
                strong_tokens=row["strong_tokens"] or 0,
                weak_tokens=row["weak_tokens"] or 0,
                problems=() if row["status"] == "ok" else Problem.parse(row["status"]),
                notes=tuple(row["notes"]),
                domain=row["domain"],
            )


def _is_whole(row: Any) -> bool:
    """Tell whether a row says how it went, with a number for each reward and no other."""
    if not isinstance(row, dict) or not row.keys() >= _FIELDS:
        return False
    numbers = [row[name] for name in _NUMBERS]
    is_number = [isinstance(value, float) and math.isfinite(value) for value in numbers]
    return all(is_number) if row["status"] == "ok" else numbers[0] is None


def _values(answer: bytes) -> Mapping[str, Any]:
    try:
        values = json.loads(answer)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def _message(answer: bytes) -> str | None:
    error = _values(answer).get("error")
    return str(error["message"]) if isinstance(error, dict) and "message" in error else None


def _retry_after(error: urllib.error.HTTPError) -> float | None:
    text = error.headers.get("Retry-After") or ""
    return float(text) if text.isdecimal() else None
