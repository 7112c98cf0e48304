"""Nothing that is written or shown holds a token of the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# A token has 34 characters behind hf_; what is shorter may be the name of a folder, hf_datasets.
_TOKEN = re.compile(r"hf_(?:oauth_|jwt_)[\w.-]{8,}|(?:hf_|api_org_)[A-Za-z0-9]{20,}")
_KEYS = {"token", "hf_token"}


def without_tokens(value: Any, secret: str | None = None) -> Any:
    """Return plain values without anything that is, or looks like, a token of the Hub.

    Args:
        value: A text, or mappings and lists of plain values; left as it is.
        secret: A token that is known, whatever it looks like; one of under 8 characters is none.
    """
    if isinstance(value, str):
        known = secret is not None and len(secret) >= 8
        return _TOKEN.sub("hf_***", value.replace(str(secret), "hf_***") if known else value)
    if isinstance(value, Mapping):
        # A group of rows may be called token; what it holds is no text.
        kept = {k: v for k, v in value.items() if k not in _KEYS or not isinstance(v, str)}
        return {without_tokens(k, secret): without_tokens(v, secret) for k, v in kept.items()}
    if isinstance(value, list | tuple):
        return [without_tokens(item, secret) for item in value]
    return value
