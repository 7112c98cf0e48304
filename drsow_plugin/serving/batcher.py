"""Requests that arrive together are scored together, in one thread, in the order they came.

Plainly, for ever::

    jobs = everything that waits, once the first of it has waited for the window
    rows = drsow.read(the prompts and responses of all jobs)
    for some in jobs, as many as have score_tokens together:
        drsow.score_rows(the rows of some)

so that clients with one query each cost what one client with all of the queries costs.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from drsow_plugin.errors import EngineError
from drsow_plugin.printable import printable
from drsow_plugin.progress import tell
from drsow_plugin.records import Prompt, Reward
from drsow_plugin.serving.metrics import Metrics
from drsow_plugin.serving.options import ServeConfig

if TYPE_CHECKING:
    from drsow_plugin.scoring.drsow import DrSoW
    from drsow_plugin.scoring.rows import Row

_MIN_RATE = 1.0  # rows a second, where nothing is known yet
_MAX_WAIT_S = 60
_OVER = "the server has stopped scoring; its log says why"


class Busy(Exception):
    """The queue is full.

    Attributes:
        retry_after: Seconds after which there may be room.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"The queue is full; try again in {retry_after} s.")
        self.retry_after = retry_after


@dataclass
class Job:
    """Rows of one request, which are answered together."""

    prompts: Sequence[Prompt]
    responses: Sequence[str]
    domains: Sequence[str | None]
    arrived: float
    answer: asyncio.Future[list[Reward]]
    rows: list[Row] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.responses)


_Deliver = Callable[[Job, "list[Reward] | Exception"], None]
_Step = Callable[[Sequence[Job], _Deliver], None]


class Batcher:
    """Scores the rows of requests, and says when it has no room for more.

    Attributes:
        is_ready: Whether the models are loaded.
    """

    def __init__(self, drsow: DrSoW, config: ServeConfig, metrics: Metrics) -> None:
        """Remember the pair.

        Args:
            drsow: What scores, in a thread that begins with :meth:`run`.
            config: Window, budget and size of the queue.
            metrics: Told what is done.
        """
        self.is_ready = False
        self._drsow = drsow
        self._config = config
        self._metrics = metrics
        self._waiting: deque[Job] = deque()
        self._arrived = asyncio.Event()
        self._rate = _MIN_RATE
        self._in_work: list[Job] = []
        self._is_over = False

    @property
    def waiting(self) -> int:
        """Rows that wait or are being scored."""
        return sum(map(len, (*self._in_work, *self._waiting)))

    def submit(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[str],
        domains: Sequence[str | None] | None = None,
    ) -> asyncio.Future[list[Reward]]:
        """Put rows into the queue; see :meth:`drsow_plugin.DrSoW.score`.

        Returns:
            What will have one reward for each row; cancelled before then, they are not scored.

        Raises:
            Busy: There is no room for them.
            EngineError: Nothing is scored any more.
        """
        if self._is_over:
            raise EngineError(_OVER)
        waiting = self.waiting
        if waiting and waiting + len(responses) > self._config.queue_rows:
            raise Busy(max(1, min(_MAX_WAIT_S, round(waiting / self._rate))))
        loop = asyncio.get_running_loop()
        job = Job(
            prompts,
            responses,
            [None] * len(responses) if domains is None else domains,
            loop.time(),
            loop.create_future(),
        )
        self._waiting.append(job)
        self._metrics.waiting.set(self.waiting)
        self._arrived.set()
        return job.answer

    async def run(self) -> None:
        """Load the models, and score what arrives until cancelled.

        Raises:
            DrSoWError: The models cannot be loaded.
        """
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix="drsow-score") as worker:
            try:
                await loop.run_in_executor(worker, self._load)
                self.is_ready = True
                self._metrics.ready.set(1)
                while True:
                    await self._work(worker)
            finally:
                self._is_over = True
                for job in (*self._in_work, *self._waiting):
                    _settle(job.answer, EngineError(_OVER))

    async def _work(self, worker: ThreadPoolExecutor) -> None:
        """Wait for requests, and answer them."""
        loop = asyncio.get_running_loop()
        await self._arrived.wait()
        until = self._waiting[0].arrived + self._config.batch_window / 1000
        await asyncio.sleep(max(0.0, until - loop.time()))
        self._in_work = [*self._waiting]
        self._waiting.clear()
        self._arrived.clear()
        started = loop.time()
        await loop.run_in_executor(worker, self._answer_all, self._in_work, loop)
        self._rate = sum(map(len, self._in_work)) / max(loop.time() - started, 1e-3)
        self._in_work = []
        self._metrics.waiting.set(self.waiting)

    def _load(self) -> None:
        for model in self._drsow.models.values():
            model.load()

    def _answer_all(self, jobs: Sequence[Job], loop: asyncio.AbstractEventLoop) -> None:
        """Answer jobs, in the thread that scores."""

        def deliver(job: Job, outcome: list[Reward] | Exception) -> None:
            loop.call_soon_threadsafe(_settle, job.answer, outcome)

        readable = self._together(jobs, self._read, deliver)
        for part in parts(readable, self._config.score_tokens):
            self._together(part, self._score, deliver)

    def _together(self, jobs: Sequence[Job], step: _Step, deliver: _Deliver) -> list[Job]:
        """Do a step with jobs together or, where that fails, with each alone.

        Returns:
            Those with which it went well; the others are answered with their error.
        """
        jobs = [job for job in jobs if not job.answer.cancelled()]
        if not jobs:
            return []
        try:
            step(jobs, deliver)
        except Exception as error:  # whatever it is, the next requests are answered all the same
            if len(jobs) > 1:
                return [job for one in jobs for job in self._together([one], step, deliver)]
            tell_failure(error)
            deliver(jobs[0], error)
            return []
        return [*jobs]

    def _read(self, jobs: Sequence[Job], _deliver: _Deliver) -> None:
        rows = iter(
            self._drsow.read(
                [prompt for job in jobs for prompt in job.prompts],
                [response for job in jobs for response in job.responses],
                domains=self._domains(jobs),
                on_error="null",
            )
        )
        for job in jobs:
            job.rows = [next(rows) for _ in job.responses]

    def _domains(self, jobs: Sequence[Job]) -> list[str | None] | None:
        if not self._drsow.config.routing.is_on:
            return None
        return [domain for job in jobs for domain in job.domains]

    def _score(self, jobs: Sequence[Job], deliver: _Deliver) -> None:
        rewards = self._drsow.score_rows(
            [row for job in jobs for row in job.rows],
            on_error="null",
            progress=lambda _tokens, _total: None,
        )
        self._metrics.scored(rewards, sum(len(row) for job in jobs for row in job.rows))
        begun = 0
        for job in jobs:
            deliver(job, rewards[begun : begun + len(job)])
            begun += len(job)


def parts(jobs: Sequence[Job], tokens: int) -> Iterator[list[Job]]:
    """Yield jobs in groups, in order, each of at most so many tokens or of one job."""
    part: list[Job] = []
    size = 0
    for job in jobs:
        own = sum(map(len, job.rows))
        if part and size + own > tokens:
            yield part
            part, size = [], 0
        part.append(job)
        size += own
    if part:
        yield part


def _settle(answer: asyncio.Future[list[Reward]], outcome: list[Reward] | Exception) -> None:
    if answer.done():  # the client went away
        return
    if isinstance(outcome, Exception):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)


def tell_failure(error: Exception) -> None:
    """Say on stderr what failed and where; not more, as an error may quote a text."""
    if isinstance(error, EngineError):
        tell(f"scoring failed: {printable(str(error))}")
        return
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(frame.filename).name}:{frame.lineno}"
    tell(f"scoring failed: {type(error).__name__} in {frame.name}, {place}")
