"""The pair of models that the CPU benchmark scores with, and what a method answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from measure import backbone_parameters

from drsow_plugin import DrSoW
from drsow_plugin.models.demo import demo_model
from drsow_plugin.records import TokenPair

PEER_ROWS = 8
"""The batch size of lm-eval and of RewardBench: rows of one, pairs of the other."""


class NotRun(Exception):
    """A method cannot score these rows here; says why."""


@dataclass
class Scored:
    """What a method found.

    Attributes:
        logprobs: For each row its log-prob.
        pairs: For each row the tokens that were scored, where they are not our own.
    """

    logprobs: list[float]
    pairs: list[TokenPair] = field(default_factory=list)


def open_pair(dtype: str) -> DrSoW:
    """Return the pair of the benchmarks: one model, with its template and as a plain LM."""
    return DrSoW("demo", "demo", weak_template="none", dtype=dtype, device="cpu")


def load_model(dtype: str) -> Any:
    """Return the model of the pair, by transformers alone.

    It no longer says that it comes from a quantised file: TRL would refuse it for that.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    path = demo_model()
    loaded = AutoModelForCausalLM.from_pretrained(
        str(path.parent), gguf_file=path.name, dtype=getattr(torch, dtype)
    )
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = type(loaded)(config)
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()
    return model.eval()


def shape() -> tuple[Any, int]:
    """Return the model's configuration, and its parameters without the tables; no weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    path = demo_model()
    config = AutoConfig.from_pretrained(str(path.parent), gguf_file=path.name)
    with torch.device("meta"):
        return config, backbone_parameters(AutoModelForCausalLM.from_config(config))
