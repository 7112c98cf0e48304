"""How a policy is trained on rewards of its own responses, as frozen and checked configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from drsow_plugin.config.model import ModelConfig, parse_model
from drsow_plugin.config.options import given_options, options_of, parse_options
from drsow_plugin.config.pair import OPTIONS, PairConfig, as_options, parse_pair
from drsow_plugin.config.parse import parse_text
from drsow_plugin.errors import ConfigError, unknown_name
from drsow_plugin.option import Values, documented, option
from drsow_plugin.tuning.options import ABOVE_ZERO, MODEL, NAME, WHOLE, check_adapter, check_dtype


def _from_zero(name: str, value: object) -> float:
    return 0.0 if str(value) in ("0", "0.0") else ABOVE_ZERO.parse(name, value)


@documented
@dataclass(frozen=True)
class OnlineConfig:
    """How a policy is trained on rewards of its own responses."""

    prompt_column: str = option("prompt", "The column with the prompts: texts or messages.")
    candidates: int = option(
        8, "Responses to each prompt of a step: a group, whose rewards are compared."
    )
    max_tokens: int = option(512, "Maximum of tokens of a response; one that has more is cut.")
    temperature: float = option(1.0, "What logits are divided by.", values=ABOVE_ZERO)
    beta: float = option(
        0.04,
        "How much the distance (KL) from the policy as it began counts; 0 is not at all.",
        "Above 0 and without `lora_rank` the policy as it began takes memory of its own.",
        values=Values(_from_zero, "number from 0", "float"),
    )
    learning_rate: float | None = option(
        None,
        "Highest learning rate; it warms up and falls like a cosine.",
        unset="1e-6; an adapter 1e-5",
        values=ABOVE_ZERO,
    )
    epochs: float = option(1.0, "Passes over the prompts.", values=ABOVE_ZERO)
    steps: int | None = option(None, "Steps, instead of `epochs`.", unset="as `epochs` says")
    batch_prompts: int = option(8, "Prompts of a step, all of whose responses are sampled at once.")
    batch_rows: int | None = option(
        None, "Responses in memory at once while weights are trained.", unset="as `candidates`"
    )
    lora_rank: int = option(
        0, "Rank of a LoRA adapter on all linear layers; 0 trains all weights.", values=WHOLE
    )
    checkpoint_steps: int = option(20, "Steps after which a killed run can go on.")
    seed: int = option(0, "Of the order of prompts, the responses and the adapter.", values=WHOLE)

    @property
    def rate(self) -> float:
        """The learning rate in force."""
        return self.learning_rate or (1e-5 if self.lora_rank else 1e-6)

    @property
    def rows(self) -> int:
        """How many responses are in memory at once."""
        return self.batch_rows or self.candidates

    def steps_over(self, prompts: int) -> int:
        """Return how many steps are taken over so many prompts; at least one."""
        return self.steps or max(1, round(self.epochs * prompts / self.batch_prompts))


ONLINE_OPTIONS = options_of(OnlineConfig)
OF_POLICY = tuple(f"{NAME}_{name}" for name in MODEL)
OF_ONLINE = frozenset((NAME, *OF_POLICY, *ONLINE_OPTIONS, *OPTIONS))


@dataclass(frozen=True)
class OnlineSetup:
    """A policy, the pair whose reward it is trained on, and how.

    Attributes:
        policy: The model that is trained.
        pair: What rewards its responses.
        online: How it is trained.
    """

    policy: ModelConfig
    pair: PairConfig
    online: OnlineConfig

    def options(self) -> dict[str, Any]:
        """Return the options in force, but for defaults."""
        return {
            NAME: self.policy.source,
            **given_options(self.policy, f"{NAME}_"),
            **as_options(self.pair),
            **given_options(self.online),
        }


def parse_online(policy: object, options: Mapping[str, Any]) -> OnlineSetup:
    """Turn options into a checked configuration.

    Args:
        policy: The model to train.
        options: Those of a pair, spelled as everywhere; those of the policy with ``policy_``
            before them; and those of :class:`OnlineConfig`.

    Raises:
        ConfigError: A name is unknown, a value is wrong, or it has no effect.
    """
    for name in options:
        if name not in OF_ONLINE:
            raise ConfigError(unknown_name("option", name, OF_ONLINE))
    model = parse_model(NAME, parse_text(NAME, policy), options, shared=())
    check_dtype(model)
    pair = parse_pair({name: value for name, value in options.items() if name in OPTIONS})
    online = OnlineConfig(**parse_options(OnlineConfig, options))
    check_adapter(model, whole=not online.lora_rank)
    if online.candidates < 2:
        raise ConfigError("candidates=1 is no group to compare rewards in. Give at least 2.")
    if online.steps is not None and options.get("epochs") is not None:
        raise ConfigError("Give steps or epochs, not both: either says how long training takes.")
    if online.candidates * online.batch_prompts % online.rows:
        raise ConfigError(
            f"batch_prompts={online.batch_prompts} times candidates={online.candidates} is no "
            f"multiple of batch_rows={online.rows}."
        )
    return OnlineSetup(model, pair, online)
