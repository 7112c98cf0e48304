"""What models of lm-eval share that give rewards and nothing else: no perplexity, no texts."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import lm_eval.models  # noqa: F401  (else registering a model hides lm-eval's own)
from lm_eval.api.model import LM

from drsow_plugin.errors import ConfigError
from drsow_plugin.harness.context import ChatContext
from drsow_plugin.harness.requests import (
    check_distinct,
    only_scores,
    require_preference_tasks,
    use_own_table,
)
from drsow_plugin.models.devices import has_cuda, process_group, torch_device
from drsow_plugin.records import Prompt

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import CacheHook

logger = logging.getLogger(__name__)

T = TypeVar("T")
Self = TypeVar("Self", bound="RewardingLM")


class RewardingLM(LM):
    """A model of lm-eval whose log-likelihoods are rewards.

    Attributes:
        KIND: What it is, in a message.
    """

    KIND: ClassVar[str]

    def __init__(self) -> None:
        """Join the other processes of a data-parallel launch."""
        super().__init__()
        self._state = _launched_state()
        if self._state is not None:
            self._rank, self._world_size = self._state.process_index, self._state.num_processes

    @classmethod
    def create_from_arg_string(
        cls: type[Self], arg_string: str, additional_config: dict[str, Any] | None = None
    ) -> Self:
        """Open a model from lm-eval's ``name=value,…``; see :meth:`create_from_arg_obj`."""
        from lm_eval.utils import simple_parse_args_string

        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    @classmethod
    def create_from_arg_obj(
        cls: type[Self], arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> Self:
        """Open a model; what ``--model_args`` says goes before lm-eval's own arguments."""
        defaults = {k: v for k, v in (additional_config or {}).items() if v is not None}
        if "domain_parts" in arg_dict and arg_dict["domain_parts"] is None:
            arg_dict = {**arg_dict, "domain_parts": "none"}  # lm-eval reads that word as None
        return cls(**{**defaults, **arg_dict})

    @property
    def fingerprint(self) -> str:
        """A hash of everything that changes a reward."""
        raise NotImplementedError

    def _place(self, device: str | None) -> str | None:
        if self._state is not None:
            self._device = self._state.device
            return str(self._state.device)
        if device in ("cuda", "cuda:0") and not has_cuda():
            device = None  # lm-eval's default, which it gives on a machine without a GPU too
        self._device = torch_device(device or "cpu")
        return device

    def _rows(self, requests: Sequence[Instance], overflow: str) -> tuple[list[Prompt], list[str]]:
        """Return the prompts and responses that are asked for.

        Args:
            requests: What lm-eval asks for.
            overflow: The policy on rows that are too long.

        Raises:
            ConfigError: A reward may be missing in a task that cannot take that, or a response
                cache would mix two prompts up.
        """
        if overflow != "error":
            require_preference_tasks(requests, f"overflow={overflow}")
        contexts = [request.args[0] for request in requests]
        if self.cache_hook.dbdict is not None:
            check_distinct(contexts)
        prompts = [c.messages if isinstance(c, ChatContext) else str(c) for c in contexts]
        return prompts, [request.args[1] for request in requests]

    def _answers(
        self, requests: Sequence[Instance], rewards: Sequence[tuple[float | None, str | None]]
    ) -> list[tuple[float, bool]]:
        """Return rewards as lm-eval takes log-likelihoods; NaN stands for a missing one.

        Args:
            requests: What lm-eval asks for.
            rewards: Of each the reward, or the reason why there is none.

        Raises:
            ConfigError: A reward is missing in a task that cannot take that.
        """
        missing = [reason for reward, reason in rewards if reward is None]
        if missing:
            require_preference_tasks(requests, str(missing[0]))
            logger.warning(
                "%d of %d responses have no reward; the first: %s",
                len(missing),
                len(rewards),
                missing[0],
            )
        return [(math.nan if reward is None else reward, False) for reward, _ in rewards]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Raise: a reward needs a prompt and a response."""
        raise ConfigError(only_scores(requests, "the perplexity of a text", self.KIND))

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Raise: a reward model does not write."""
        raise ConfigError(only_scores(requests, "generated text", self.KIND))

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return the messages as they are: whatever scores them renders them itself."""
        return ChatContext(json.dumps(chat_history, ensure_ascii=False), chat_history)

    def set_cache_hook(self, cache_hook: CacheHook) -> None:
        """Accept a response cache, in which this model gets its own table.

        Raises:
            ConfigError: This lm-eval keeps responses in another way.
        """
        super().set_cache_hook(cache_hook)
        if cache_hook.dbdict is not None:
            use_own_table(cache_hook.dbdict, self.fingerprint)

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
        self._gather_counts()
        self._state.wait_for_everyone()

    def _gather_counts(self) -> None:
        """Let the first process take over what the others have counted since the last time."""
        raise NotImplementedError


def _launched_state() -> Any:
    """Return accelerate's state in a data-parallel launch, else ``None``.

    Raises:
        ConfigError: The processes do not find each other.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes < 2:
        return None
    state = process_group()
    if state.num_processes != processes:
        raise ConfigError(
            f"This is one of {processes} processes (WORLD_SIZE), of which accelerate sees "
            f"{state.num_processes}. Start them with 'accelerate launch' or torchrun."
        )
    return state
