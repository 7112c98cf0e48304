"""Texts of others, such as names in the data, made safe to print."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from typing import Any

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}  # these reorder a line


def printable(text: str, *, lines: bool = False) -> str:
    """Return a text without the characters that steer a terminal or hide what is written.

    Args:
        text: Any text.
        lines: Whether line breaks and tabs stay; they become spaces otherwise.

    Returns:
        The text with a space for every control character that is white space, and a replacement
        character for every other one, for half a surrogate pair, and for what changes the
        direction of writing.
    """
    if text.isprintable():
        return text
    if not lines:
        return "".join(map(_printable, text))
    return "".join(c if c in "\n\t" else _printable(c) for c in re.sub("\r\n?", "\n", text))


def json_line(value: object) -> str:
    """Return plain values as JSON in one line, with escapes for what ``printable`` replaces."""
    text = json.dumps(value, ensure_ascii=False)
    if text.isprintable():
        return text
    return "".join(c if _printable(c) == c else f"\\u{ord(c):04x}" for c in text)


def finite(value: Any) -> Any:
    """Return a value with null for NaN and infinities, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: finite(inner) for name, inner in value.items()}
    return [finite(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _printable(character: str) -> str:
    category = unicodedata.category(character)
    if character.isspace() and category in ("Cc", "Zl", "Zp"):
        return " "
    steers = category in ("Cc", "Cs") or unicodedata.bidirectional(character) in _BIDI
    return REPLACEMENT if steers else character
