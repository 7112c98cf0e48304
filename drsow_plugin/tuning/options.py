"""How a policy is tuned, as frozen and checked configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from drsow_plugin.config.model import SIDE_OPTIONS, ModelConfig, parse_model
from drsow_plugin.config.options import given_options, options_of, parse_options
from drsow_plugin.config.parse import parse_text, parse_whole
from drsow_plugin.errors import ConfigError, unknown_name
from drsow_plugin.option import Values, documented, option

NAME = "policy"
_RATES = {"dpo": 5e-7, "simpo": 1e-6, "kto": 5e-7, "reward": 1e-5}
_LORA_RATES = {"dpo": 5e-6, "simpo": 5e-6, "kto": 5e-6, "reward": 1e-4}
_BETAS = {"dpo": 0.1, "simpo": 2.0, "kto": 0.1}


def above_zero(name: str, value: object) -> float:
    """Return a number above 0.

    Raises:
        ConfigError: It is none.
    """
    try:
        number = float(str(value))
    except ValueError:
        number = -1.0
    if isinstance(value, bool) or not 0 < number < 1e6:
        raise ConfigError(f"{name} is a number above 0, got {value!r}.")
    return number


ABOVE_ZERO = Values(above_zero, "number above 0", "float")
WHOLE = Values(parse_whole, "whole number", "int")


@documented
@dataclass(frozen=True)
class TuneConfig:
    """How a policy is tuned."""

    method: Literal["dpo", "simpo", "kto", "reward"] = option(
        "dpo",
        "`dpo` (arXiv 2305.18290), `simpo` (2405.14734, without a reference; the paper's), `kto` "
        "(2402.01306, each response by itself), or `reward`: a reward model (Bradley-Terry).",
    )
    labels: Literal["given", "random", "longer"] = option(
        "given",
        "Which response of a pair is taken for the better one: as `given`; `random` or the "
        "`longer` one are baselines.",
        "Of responses of one length the given one is.",
    )
    beta: float | None = option(
        None,
        "The method's own: how much a difference in log-probs counts.",
        unset="0.1; simpo 2",
        values=ABOVE_ZERO,
    )
    gamma: float = option(1.0, "SimPO's target margin, in units of the reward.", values=ABOVE_ZERO)
    learning_rate: float | None = option(
        None,
        "Highest learning rate; it warms up and falls like a cosine.",
        unset="5e-7; simpo 1e-6; reward 1e-5; an adapter 5e-6, of reward 1e-4",
        values=ABOVE_ZERO,
    )
    epochs: float = option(1.0, "Passes over the pairs.", values=ABOVE_ZERO)
    batch_pairs: int = option(8, "Pairs of a step.", "TRL's gradients add up over smaller batches.")
    batch_rows: int = option(1, "Pairs in memory at once.")
    max_length: int = option(1024, "Maximum of tokens; pairs with a longer row are left out.")
    lora_rank: int = option(
        0,
        "Rank of a LoRA adapter on all linear layers; 0 trains all weights.",
        values=WHOLE,
    )
    merge: bool = option(
        False,
        "Whether an adapter is merged: the whole model is written, which can be tuned again.",
        "A reward model always is.",
    )
    min_pairs: int = option(32, "With fewer pairs, training is refused.")
    checkpoint_steps: int = option(100, "Steps after which a killed run can go on.")
    seed: int = option(
        0,
        "Of the order of rows, the adapter, a reward model's head and random labels.",
        values=WHOLE,
    )

    @property
    def rate(self) -> float:
        """The learning rate in force."""
        rates = _LORA_RATES if self.lora_rank else _RATES
        return self.learning_rate or rates[self.method]

    @property
    def strength(self) -> float:
        """The method's beta in force; 0 for a reward model, which has none."""
        return self.beta or _BETAS.get(self.method, 0.0)


TUNE_OPTIONS = options_of(TuneConfig)
MODEL = (
    "revision",
    "adapter",
    "adapter_revision",
    "dtype",
    "device",
    "template",
    "tokenizer",
    "trust_remote_code",
    "allow_pickle",
)
"""The options of a model that training takes."""
OF_TUNING = frozenset((NAME, *TUNE_OPTIONS, *MODEL))


@dataclass(frozen=True)
class Setup:
    """A policy, and how it is tuned."""

    policy: ModelConfig
    tune: TuneConfig

    def options(self) -> dict[str, Any]:
        """Return the options in force, but for defaults."""
        return {
            NAME: self.policy.source,
            **given_options(self.policy),
            **given_options(self.tune),
        }


def parse_tuning(policy: object, options: Mapping[str, Any]) -> Setup:
    """Turn options into a checked configuration.

    Raises:
        ConfigError: A name is unknown, a value is wrong, or it has no effect.
    """
    for name in options:
        if name not in OF_TUNING:
            raise ConfigError(unknown_name("option", name, OF_TUNING))
    of_model = {name: value for name, value in options.items() if name in SIDE_OPTIONS}
    model = parse_model(NAME, parse_text(NAME, policy), of_model)
    tune = TuneConfig(**parse_options(TuneConfig, options))
    if tune.method == "reward" and options.get("beta") is not None:
        raise ConfigError("beta has no effect with method=reward, which has no reference.")
    if tune.method != "simpo" and options.get("gamma") is not None:
        raise ConfigError(f"gamma has no effect with method={tune.method}; it is SimPO's.")
    if tune.merge and not tune.lora_rank:
        raise ConfigError("merge has no effect without lora_rank: the whole model is trained.")
    check_adapter(model, whole=tune.merge or tune.method == "reward" or not tune.lora_rank)
    if tune.batch_pairs % tune.batch_rows:
        raise ConfigError(
            f"batch_pairs={tune.batch_pairs} is no multiple of batch_rows={tune.batch_rows}."
        )
    check_dtype(model)
    return Setup(model, tune)


def check_dtype(model: ModelConfig) -> None:
    """Check that a model can be trained in its dtype.

    Raises:
        ConfigError: It cannot.
    """
    if model.dtype not in (None, "float32", "bfloat16"):
        raise ConfigError(f"dtype={model.dtype} cannot be trained with. Give float32 or bfloat16.")


def check_adapter(model: ModelConfig, *, whole: bool) -> None:
    """Check that what is trained from a policy with an adapter can be opened.

    Raises:
        ConfigError: It would be an adapter of the policy with the other one.
    """
    if model.adapter is not None and not whole:
        raise ConfigError(
            f"What is trained from {model.source!r} with adapter={model.adapter!r} would be an "
            "adapter of the two together, which nothing opens. Write the whole model: merge=true, "
            "or without lora_rank."
        )
