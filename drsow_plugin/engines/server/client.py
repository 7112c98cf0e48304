"""HTTP to a server: one request at a time, and patience with servers that do not answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from drsow_plugin.engines.server.settings import Settings
from drsow_plugin.errors import EngineError, MissingExtraError

try:
    import aiohttp
    import tenacity
    from tenacity.stop import stop_base
except ImportError as error:
    raise MissingExtraError("A model on a server", "server") from error

T = TypeVar("T")

FIRST_PAUSE_S = 0.5
_MAX_PAUSE_S = 30.0
_MAX_BROKEN = 4  # attempts of a request that the server fails on, though it answers
_WAITED_AT_FIRST_S = 30.0  # for a server that is busy when it is opened
_BUSY = (408, 425, 429, 502, 503, 504)
_REFUSED = (400, 413, 422)
_ABSENT = (404, 405, 501)


class UnavailableError(Exception):
    """A server did not answer, or not now; it may later.

    Attributes:
        answered: Whether it is there.
        retry_after: Seconds after which it wants to be asked again.
    """

    def __init__(self, message: str, *, answered: bool, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.answered = answered
        self.retry_after = retry_after


class RefusedError(Exception):
    """A server does not take a request, which it never will.

    Attributes:
        status: The HTTP status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class BrokenError(RefusedError):
    """A server failed on a request, and says that it is to blame: status 500."""


class AbsentError(EngineError):
    """A server does not have what is asked for: a path, or a model."""


class DeniedError(EngineError):
    """A server wants another key, or does not have what is asked for switched on."""


class Client:
    """Sends requests; connections are kept and used again."""

    def __init__(self, settings: Settings, session: aiohttp.ClientSession) -> None:
        """Use a session; see :func:`connected`."""
        self._settings = settings
        self._session = session

    async def send(self, url: str, body: Any = None) -> Any:
        """Return the JSON that a server answers to one request: a POST if there is a body.

        Raises:
            UnavailableError: It did not answer, or asks for patience.
            RefusedError: It does not take the request, or failed on it.
            EngineError: It is no server of models, wants another key, or answers no JSON.
        """
        method = "GET" if body is None else "POST"
        try:
            async with self._session.request(
                method, url, json=body, allow_redirects=False
            ) as response:
                content = await response.read()
                status, headers = response.status, response.headers
        except asyncio.TimeoutError:
            raise UnavailableError(
                f"{url} gave no answer within {self._settings.timeout:g} s", answered=False
            ) from None
        except (aiohttp.ClientSSLError, aiohttp.InvalidURL) as error:
            raise EngineError(f"{url} cannot be asked: {error}.") from None
        except (aiohttp.ClientError, OSError) as error:
            said = str(getattr(error, "os_error", error)) or type(error).__name__
            raise UnavailableError(f"{url}: {said}", answered=False) from None
        text = self._settings.without_key(content.decode("utf-8", "replace"))
        if status != 200:
            raise self._error(url, status, text, _seconds(headers))
        try:
            return json.loads(text)
        except ValueError:
            kind = headers.get("Content-Type", "something").partition(";")[0]
            raise EngineError(
                f"{url} answered {kind} that is no JSON ({_start_of(text)!r}). Is this the "
                "server's address, with the path of its interface, such as /v1?"
            ) from None

    def _error(self, url: str, status: int, text: str, retry_after: float) -> Exception:
        """Return what a status other than 200 means."""
        said = f"{url} answered HTTP {status}: {_message(text)}"
        if status in _BUSY:
            return UnavailableError(said, answered=True, retry_after=retry_after)
        if status == 500:
            return BrokenError(said, status)
        if status in _REFUSED:
            return RefusedError(said, status)
        if status in (401, 403):
            option = f"{self._settings.name}_server_key"
            given = (
                "does not take the key that it was given" if self._settings.key else "wants a key"
            )
            return DeniedError(
                f"{url} {given} (HTTP {status}: {_message(text)}). Name the environment variable "
                f"or the file with its key with {option}=…."
            )
        kind = AbsentError if status in _ABSENT else EngineError
        return kind(f"{said.removesuffix('.')}. Is this the server's address?")

    async def patiently(
        self, attempt: Callable[[], Awaitable[T]], notice: Callable[[Exception], None]
    ) -> T:
        """Return what an attempt does, which is made again while the server does not answer.

        Args:
            attempt: What to do.
            notice: Told of each failure, before the next attempt.

        Raises:
            RefusedError: It will never succeed.
            EngineError: The time is up, or the attempt raised this.
        """
        return await self._retried(attempt, notice, self._settings.wait, _BrokenForGood())

    async def at_first(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return what an attempt does before any work: a server that is not there is an error.

        Raises:
            RefusedError: It will never succeed.
            EngineError: The server is not there or stays busy, or the attempt raised this.
        """
        wait = min(_WAITED_AT_FIRST_S, self._settings.wait)
        return await self._retried(attempt, lambda _error: None, wait, _Absent())

    async def _retried(
        self,
        attempt: Callable[[], Awaitable[T]],
        notice: Callable[[Exception], None],
        wait: float,
        is_final: stop_base,
    ) -> T:
        started = time.monotonic()
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type((UnavailableError, BrokenError)),
            stop=tenacity.stop_any(is_final, tenacity.stop_before_delay(wait)),
            wait=_pause,
            before_sleep=lambda state: notice(_failure(state)),
            reraise=True,
        )
        try:
            async for trial in retrying:
                with trial:
                    return await attempt()
        except UnavailableError as error:
            waited = time.monotonic() - started
            name = self._settings.name
            if isinstance(is_final, _Absent):
                advice = f"Start the server, or give another address with {name}_server=…."
            else:
                advice = (
                    f"It was waited for {waited:.0f} s ({name}_server_wait={wait:g}). Finished "
                    "work is kept: run again when it is there."
                )
            raise EngineError(f"{error}. {advice}") from None
        raise AssertionError("the last attempt returns or raises")


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Client]:
    """Yield a client; its connections are closed afterwards, with what is still under way."""
    headers = {} if settings.key is None else {"Authorization": f"Bearer {settings.key}"}
    async with aiohttp.ClientSession(
        headers=headers,
        timeout=aiohttp.ClientTimeout(total=settings.timeout, sock_connect=30),
        connector=aiohttp.TCPConnector(limit=0),
    ) as session:
        yield Client(settings, session)


def _failure(state: tenacity.RetryCallState) -> Exception:
    error = state.outcome and state.outcome.exception()
    assert isinstance(error, Exception)  # nothing else is tried again
    return error


def _pause(state: tenacity.RetryCallState) -> float:
    """Return the seconds before the next attempt: more each time, or what the server asks for."""
    doubled = tenacity.wait_exponential(multiplier=FIRST_PAUSE_S, max=_MAX_PAUSE_S)
    backoff = doubled + tenacity.wait_random(0, FIRST_PAUSE_S)  # not all at the same moment
    return max(backoff(state), getattr(_failure(state), "retry_after", 0.0))


class _BrokenForGood(stop_base):
    """The server fails on a request again and again."""

    def __call__(self, state: tenacity.RetryCallState) -> bool:
        return isinstance(_failure(state), BrokenError) and state.attempt_number >= _MAX_BROKEN


class _Absent(stop_base):
    """The server is not there, or fails."""

    def __call__(self, state: tenacity.RetryCallState) -> bool:
        error = _failure(state)
        return not isinstance(error, UnavailableError) or not error.answered


def _seconds(headers: Mapping[str, str]) -> float:
    """Return what the header Retry-After asks for: seconds, or a date.

    A date is told apart from the server's own, since clocks differ, and may jump.
    """
    retry_after = headers.get("Retry-After", "")
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        now = headers.get("Date")
        then = parsedate_to_datetime(now).timestamp() if now else time.time()
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - then)
    except (TypeError, ValueError):
        return 0.0


def _message(text: str) -> str:
    """Return what the body of an error says, as servers of OpenAI's interface write it."""
    try:
        found = json.loads(text)
        for name in ("error", "message", "detail"):
            found = found[name] if isinstance(found, dict) and name in found else found
    except ValueError:
        found = text
    return _start_of(str(found))


def _start_of(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 300 else f"{text[:300]}…"
