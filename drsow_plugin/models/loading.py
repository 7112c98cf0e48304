"""Loads one checkpoint with transformers, in one thread at a time.

While ``from_pretrained`` builds a model it replaces ``PreTrainedModel.tie_weights`` and torch's
default dtype for the whole process. Two threads that load at once put back each other's
replacements, and then no model in the process is tied any more: its head counts as missing.
"""

from __future__ import annotations

import threading
from typing import Any

from transformers import AutoModelForCausalLM, PreTrainedModel

_LOCK = threading.Lock()
_TIE_WEIGHTS = PreTrainedModel.tie_weights  # of another name while somebody builds a model


def load_causal_lm(name: str, **arguments: Any) -> tuple[Any, set[str]]:
    """Load a causal language model and the names of the weights that its checkpoint lacks.

    Args:
        name: A folder, or a name on the Hub.
        arguments: What ``AutoModelForCausalLM.from_pretrained`` takes.

    Raises:
        Exception: Whatever ``from_pretrained`` raises.
    """
    model, report = load(AutoModelForCausalLM, name, **arguments)
    return model, report["missing_keys"]


def load(kind: Any, name: str, **arguments: Any) -> tuple[Any, dict[str, Any]]:
    """Load a model, and what transformers reports of it: weights that its checkpoint lacks.

    Args:
        kind: Such as ``AutoModelForCausalLM``.
        name: A folder, or a name on the Hub.
        arguments: What ``kind.from_pretrained`` takes.

    Raises:
        Exception: Whatever ``from_pretrained`` raises.
    """
    with _LOCK:
        model, report = kind.from_pretrained(name, output_loading_info=True, **arguments)
    missing = set(report["missing_keys"])
    switched_off = PreTrainedModel.tie_weights is not _TIE_WEIGHTS  # others know no lock
    if switched_off and _TIE_WEIGHTS.__name__ == "tie_weights":
        _TIE_WEIGHTS(model, missing_keys=missing, recompute_mapping=False)
    return model, {**report, "missing_keys": missing}
