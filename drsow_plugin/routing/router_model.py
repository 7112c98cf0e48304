"""The model that a router may ask: one of the pair, or another one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from drsow_plugin.config.model import ModelConfig
from drsow_plugin.errors import ConfigError, DataError, EngineError
from drsow_plugin.models.language_model import LanguageModel
from drsow_plugin.models.pool import ModelPool
from drsow_plugin.progress import token_progress
from drsow_plugin.records import BAD_ROW, TOO_LONG, Batching, Prompt, Scoring

_SCORING = Scoring(overflow="skip")


class RouterModel:
    """Answers log-probs to routers; read and loaded on first use."""

    def __init__(self, config: ModelConfig | None, pool: ModelPool, batching: Batching) -> None:
        """Remember what to open.

        Args:
            config: The model; ``None`` if none was named.
            pool: What the models of the pair have loaded.
            batching: How the work is batched.
        """
        self._config = config
        self._pool = pool
        self._batching = batching

    @property
    def model(self) -> LanguageModel:
        """The opened model.

        Raises:
            ConfigError: None was named, or it is not there or cannot be used.
        """
        with self._pool.lock:
            return self._model

    @cached_property
    def _model(self) -> LanguageModel:
        if self._config is None:
            raise ConfigError("it asks a model, and none was named. Give router_model=….")
        return LanguageModel.from_config(
            "router", self._config, self._pool, _SCORING, self._batching
        )

    def logprobs(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float | None]:
        """Return the log-prob of each response, its end of turn included.

        Args:
            prompts: One for each response.
            responses: Scored as given.

        Returns:
            Sums over the tokens, in nats; ``None`` where a row is too long for the model.

        Raises:
            ConfigError: The model cannot be opened.
            DataError: A prompt or a response is not text.
            EngineError: The model failed.
        """
        with token_progress(None, None, "drsow: routing") as advance:
            found = self.model.logprobs(prompts, responses, advance)
        for number, logprob in enumerate(found):
            problem = logprob.problem
            if problem is not None and problem.kind == BAD_ROW:
                raise DataError(f"row {number}: {problem.detail}")
            if problem is not None and problem.kind != TOO_LONG:
                raise EngineError(f"row {number}: {problem}")
        return [None if logprob.problem else logprob.total for logprob in found]
