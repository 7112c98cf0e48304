"""The reward as a model of lm-eval: the log-likelihood of a response is its reward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lm_eval.models  # noqa: F401  (else registering a model hides lm-eval's own)
from lm_eval.api.registry import register_model

from drsow_plugin.config.pair import parse_pair
from drsow_plugin.config.routing import COLUMN
from drsow_plugin.errors import ConfigError
from drsow_plugin.harness.counts import RunCounts
from drsow_plugin.harness.requests import domain_labels, row_limit, with_strong
from drsow_plugin.harness.rewarding import RewardingLM
from drsow_plugin.scoring.drsow import DrSoW

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import CacheHook


@register_model("drsow")
class DrSoWLM(RewardingLM):
    """Dr.SoW as an lm-eval model: ``--model drsow --model_args strong=…,weak=…``."""

    KIND = "Dr.SoW reward model"

    def __init__(
        self,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
        **options: Any,
    ) -> None:
        """Open a pair of models.

        Args:
            batch_size: Maximum of rows in a batch. ``auto``, and 1, which is lm-eval's default,
                leave batching to the token budget (``batch_tokens``); rewards do not depend
                on it.
            max_batch_size: Maximum of rows in a batch with ``auto``.
            device: Where both models go, as lm-eval gives it: ``cuda…`` gives way to the
                CPU where torch sees no GPU, and to a process's own GPU in a data-parallel
                launch. ``strong_device`` and ``weak_device`` are taken as they are.
            **options: As for :class:`~drsow_plugin.DrSoW`; ``pretrained`` is ``strong``.

        Raises:
            ConfigError: An option or a model is wrong.
        """
        super().__init__()
        options = with_strong(options)
        options.setdefault("batch_size", row_limit(batch_size, max_batch_size))
        options["device"] = self._place(device)
        self.drsow = DrSoW.from_config(parse_pair(options))
        self._counts = RunCounts()

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Return ``(reward, False)`` for each (prompt, response), in nats.

        A response without a reward gives NaN to the preference tasks, which count it, and is an
        error for any other task.

        Raises:
            ConfigError: A reward is, or may be, missing in a task that cannot take that.
            DataError: A row cannot be scored.
        """
        prompts, responses = self._rows(requests, self.drsow.scoring.overflow)
        routing = self.drsow.config.routing
        labels = domain_labels(requests, routing) if routing.is_on else None
        rewards = self.drsow.score(prompts, responses, domains=labels)
        self._counts.count(rewards)
        if labels is not None:
            follows = routing.router == COLUMN  # which would agree with itself
            self._counts.count_domains(
                requests, rewards, [None] * len(labels) if follows else labels
            )
        return self._answers(requests, [(reward.reward, reward.reason) for reward in rewards])

    def chat_template(self, chat_template: bool | str = False) -> str:
        """Return the strong model's template, for lm-eval's records.

        Raises:
            ConfigError: A template was named here; sides have ``strong_template=…``.
        """
        if isinstance(chat_template, str):
            raise ConfigError(
                f"--apply_chat_template {chat_template}: name a template for each side, with "
                "strong_template=FILE and weak_template=FILE in --model_args."
            )
        return self.drsow.describe_template()

    @property
    def tokenizer_name(self) -> str:
        """A name that changes with anything that changes a reward, for request caches."""
        return f"drsow-{self.drsow.fingerprint[:16]}"

    def set_cache_hook(self, cache_hook: CacheHook) -> None:
        """Accept a response cache, in which this pair gets its own table.

        Raises:
            ConfigError: The rewards depend on more than what lm-eval keeps them by.
        """
        if cache_hook.dbdict is not None and self.drsow.uses_known_domains:
            raise ConfigError(
                "--use_cache keeps rewards by the prompt's text, and "
                f"router={self.drsow.config.routing.router} goes by a field beside it. Run "
                "without it."
            )
        super().set_cache_hook(cache_hook)

    @property
    def fingerprint(self) -> str:
        """A hash of everything that changes a reward."""
        return self.drsow.fingerprint

    def get_model_info(self) -> dict[str, Any]:
        """Return what lm-eval writes into ``results.json``: the pair, policies, versions."""
        described = {
            **self.drsow.describe(),
            "fingerprint": self.drsow.fingerprint,
            "devices": self.drsow.devices,
            **self._counts.describe(),
        }
        if self.drsow.config.routing.is_on:
            described["domains"] = self._counts.describe_domains()
            if self.cache_hook.dbdict is not None:
                note = "counts only what was not taken from --use_cache"
                described["domains"]["note"] = note
        return {"drsow": described}

    def _gather_counts(self) -> None:
        counts, self._counts = self._counts, RunCounts()
        for other in self.gather_object(counts) or ():
            self._counts.update(other)
