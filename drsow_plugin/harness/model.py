"""The reward as a model of lm-eval: the log-likelihood of a response is its reward."""

from __future__ import annotations

import json
import logging
import math
import os
from typing import TYPE_CHECKING, Any, TypeVar

import lm_eval.models  # noqa: F401  (else registering a model hides lm-eval's own)
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from drsow_plugin.config.pair import parse_pair
from drsow_plugin.config.routing import COLUMN
from drsow_plugin.errors import ConfigError
from drsow_plugin.harness.context import ChatContext
from drsow_plugin.harness.counts import RunCounts
from drsow_plugin.harness.requests import (
    check_distinct,
    domain_labels,
    only_scores,
    require_preference_tasks,
    row_limit,
    use_own_table,
    with_strong,
)
from drsow_plugin.models.devices import has_cuda, torch_device
from drsow_plugin.scoring.drsow import DrSoW

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import CacheHook

T = TypeVar("T")
logger = logging.getLogger(__name__)


@register_model("drsow")
class DrSoWLM(LM):
    """Dr.SoW as an lm-eval model: ``--model drsow --model_args strong=…,weak=…``."""

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
        self._state = _launched_state()
        if self._state is not None:
            self._rank, self._world_size = self._state.process_index, self._state.num_processes
        options = with_strong(options)
        options.setdefault("batch_size", row_limit(batch_size, max_batch_size))
        options["device"] = self._place(device)
        self.drsow = DrSoW.from_config(parse_pair(options))
        self._counts = RunCounts()

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: dict[str, Any] | None = None
    ) -> DrSoWLM:
        """Open a pair from lm-eval's ``name=value,…``; see :meth:`create_from_arg_obj`."""
        from lm_eval.utils import simple_parse_args_string

        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> DrSoWLM:
        """Open a pair; what ``--model_args`` says goes before lm-eval's own arguments."""
        defaults = {k: v for k, v in (additional_config or {}).items() if v is not None}
        if "domain_parts" in arg_dict and arg_dict["domain_parts"] is None:
            arg_dict = {**arg_dict, "domain_parts": "none"}  # lm-eval reads that word as None
        return cls(**{**defaults, **arg_dict})

    def _place(self, device: str | None) -> str | None:
        if self._state is not None:
            self._device = self._state.device
            return str(self._state.device)
        if device in ("cuda", "cuda:0") and not has_cuda():
            device = None  # lm-eval's default, which it gives on a machine without a GPU too
        self._device = torch_device(device or "cpu")
        return device

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
        overflow = self.drsow.scoring.overflow
        if overflow != "error":
            require_preference_tasks(requests, f"overflow={overflow}")
        contexts = [request.args[0] for request in requests]
        if self.cache_hook.dbdict is not None:
            check_distinct(contexts)
        prompts = [c.messages if isinstance(c, ChatContext) else str(c) for c in contexts]
        responses = [request.args[1] for request in requests]
        routing = self.drsow.config.routing
        labels = domain_labels(requests, routing) if routing.is_on else None
        rewards = self.drsow.score(prompts, responses, domains=labels)
        self._counts.count(rewards)
        if labels is not None:
            follows = routing.router == COLUMN  # which would agree with itself
            self._counts.count_domains(
                requests, rewards, [None] * len(labels) if follows else labels
            )
        missing = [reward.reason for reward in rewards if reward.reward is None]
        if missing:
            require_preference_tasks(requests, str(missing[0]))
            logger.warning(
                "%d of %d responses have no reward; the first: %s",
                len(missing),
                len(rewards),
                missing[0],
            )
        return [(math.nan if r.reward is None else r.reward, False) for r in rewards]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Raise: a reward needs a prompt and a response."""
        raise ConfigError(only_scores(requests, "the perplexity of a text"))

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Raise: a reward model does not write."""
        raise ConfigError(only_scores(requests, "generated text"))

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return the messages as they are: each side renders them with its own template."""
        return ChatContext(json.dumps(chat_history, ensure_ascii=False), chat_history)

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
        super().set_cache_hook(cache_hook)
        cache = cache_hook.dbdict
        if cache is None:
            return
        if self.drsow.uses_known_domains:
            raise ConfigError(
                "--use_cache keeps rewards by the prompt's text, and "
                f"router={self.drsow.config.routing.router} goes by a field beside it. Run "
                "without it."
            )
        use_own_table(cache, self.drsow.fingerprint)

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

    def all_gather(self, tensor: T) -> T:
        """Return the tensors of all processes, joined."""
        if self._state is None:
            return tensor
        from accelerate.utils import gather

        return gather(tensor)  # type: ignore[no-any-return]

    def gather_object(self, obj: T, dst: int = 0) -> list[T] | None:
        """Return the objects of all processes on process ``dst``, else ``None``."""
        if self._state is None:
            return [obj]
        from accelerate.utils import gather_object

        gathered: list[T] = gather_object([obj])
        return gathered if self.rank == dst else None

    def barrier(self) -> None:
        """Wait for all processes; the first takes over what the others have counted.

        lm-eval calls this when all have answered requests of a kind.
        """
        if self._state is None:
            return
        counts, self._counts = self._counts, RunCounts()
        for other in self.gather_object(counts) or ():
            self._counts.update(other)
        self._state.wait_for_everyone()


def _launched_state() -> Any:
    """Return accelerate's state in a data-parallel launch, else ``None``.

    Raises:
        ConfigError: The processes do not find each other.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes < 2:
        return None
    from accelerate import PartialState

    state = PartialState(cpu=not has_cuda())
    if state.num_processes != processes:
        raise ConfigError(
            f"This is one of {processes} processes (WORLD_SIZE), of which accelerate sees "
            f"{state.num_processes}. Start them with 'accelerate launch' or torchrun."
        )
    return state
