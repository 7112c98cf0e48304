"""What is asked of a server, and where its key comes from."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from drsow_plugin.errors import ConfigError


@dataclass(frozen=True)
class Settings:
    """A served model, as it was asked for.

    Attributes:
        name: What the model is called in errors, such as ``strong``.
        source: The model whose tokenizer is used; a Hub id, a folder or a file.
        urls: Servers of the model, each with the path under which OpenAI's interface is.
        model: What they call it; ``None`` where it is under its own name.
        key: The secret that they want, if any; it is in no representation and no message.
        timeout: Seconds for the answer to one request.
        wait: Seconds that a server is waited for that stops answering.
    """

    name: str
    source: str
    urls: tuple[str, ...]
    model: str | None = None
    key: str | None = field(default=None, repr=False)
    timeout: float = 300.0
    wait: float = 600.0

    def without_key(self, text: str) -> str:
        """Return a text that a server may have put the key into without it."""
        return text.replace(self.key, "***") if self.key else text


def read_key(option: str, place: str | None) -> str | None:
    """Return a secret from an environment variable or a file.

    Args:
        option: The option that names the place.
        place: Name of the variable, or of the file; ``None`` for no key.

    Raises:
        ConfigError: There is no such variable and no such file, or nothing usable is in it. What
            was given is not repeated, as it may be the key itself.
    """
    if place is None:
        return None
    key = os.environ.get(place)
    if key is None:
        try:
            key = Path(place).read_text(encoding="utf-8")
        except (OSError, ValueError):
            raise ConfigError(
                f"{option} names neither an environment variable that is set nor a file that can "
                "be read. The key itself is not an option, which would be written down."
            ) from None
    key = key.strip()
    if not key or not key.isprintable() or not key.isascii():
        raise ConfigError(f"{option}: the variable or file that it names holds no key of one line.")
    return key
