"""The model that a router may ask: one of the pair, or another one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from drsow_plugin.config.model import ModelConfig
from drsow_plugin.errors import ConfigError, DataError
from drsow_plugin.models.language_model import Batching, Side
from drsow_plugin.models.pool import Shared
from drsow_plugin.progress import token_progress
from drsow_plugin.prompts import as_messages
from drsow_plugin.records import Prompt, Scoring, TokenPair

_SCORING = Scoring(overflow="skip")


class RouterModel:
    """Answers log-probs to routers; read and loaded on first use."""

    def __init__(self, config: ModelConfig | None, shared: Shared, batching: Batching) -> None:
        """Remember what to open.

        Args:
            config: The model; ``None`` if none was named.
            shared: What the models of the pair have loaded.
            batching: How the work is batched.
        """
        self._config = config
        self._shared = shared
        self._batching = batching

    @property
    def side(self) -> Side:
        """The opened model.

        Raises:
            ConfigError: None was named, or it is not there or cannot be used.
        """
        with self._shared.lock:
            return self._side

    @cached_property
    def _side(self) -> Side:
        if self._config is None:
            raise ConfigError("it asks a model, and none was named. Give router_model=….")
        return Side("router", self._config, self._shared, _SCORING, self._batching)

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
        rows: list[TokenPair] = []
        for row in self.side.tokenise_all(
            [
                (as_messages(prompt, f"row {number}"), response, f"row {number}")
                for number, (prompt, response) in enumerate(zip(prompts, responses, strict=True))
            ]
        ):
            if isinstance(row, DataError):
                raise row
            rows.append(row)
        pairs = [row for row in rows if row.reason is None]
        if not pairs:
            return [None] * len(rows)
        with token_progress(None, sum(map(len, pairs)), "drsow: routing") as advance:
            logprobs = iter(self.side.engine.logprobs(pairs, advance))
        return [None if row.reason else next(logprobs).total for row in rows]
