"""The name of a pair's results, as lm-eval stores them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any


def pair_name(model_args: str | Mapping[str, Any] | None) -> str | None:
    """Return ``STRONG_over_WEAK`` for the arguments of a pair, else ``None``."""
    if isinstance(model_args, str):
        parts = (part.partition("=") for part in model_args.split(","))
        model_args = {name.strip(): value for name, _, value in parts}
    if not isinstance(model_args, Mapping) or "weak" not in model_args:
        return None
    strong = model_args.get("strong") or model_args.get("pretrained") or "?"
    return f"{PurePath(str(strong)).name}_over_{PurePath(str(model_args['weak'])).name}"
